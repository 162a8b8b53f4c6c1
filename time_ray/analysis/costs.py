"""What cells cost: seconds by stage, of every model once, and how much of it is a cell's own or shared with others."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from time_ray.results import CellResult

STAGES = ("init", "train", "deploy", "eval")
_OF_EXPERTS = ("init", "train")  # the rest belongs to what is deployed and scored

Seconds = Mapping[str, float]


class Cost(NamedTuple):
    """Seconds by stage that went into one cell.

    Attributes:
        own: of models that no other cell of the experiment needs.
        shared: of models that others need, too, each in full.

    """

    own: Seconds
    shared: Seconds


@dataclass(frozen=True)
class Costs:
    """Seconds of an experiment.

    Attributes:
        by_cell: by the cell's key.
        total: by stage, every model counted once, however many cells need it.
        unshared: by stage, if every cell had made all that it needs for itself.

    """

    by_cell: Mapping[str, Cost]
    total: Seconds
    unshared: Seconds

    @property
    def saved(self) -> float:
        """Seconds that sharing saved."""
        return sum(self.unshared.values()) - sum(self.total.values())


def costs(results: Sequence[CellResult]) -> Costs:
    """What the cells of an experiment cost, as far as they are done; a resumed sweep's earlier hours count."""
    parts = {result.cell.key: dict(_parts(result)) for result in results}
    users = Counter(key for own in parts.values() for key in own)
    every = {key: seconds for own in parts.values() for key, seconds in own.items()}
    return Costs(
        by_cell={
            cell: Cost(
                _summed(seconds for key, seconds in own.items() if users[key] == 1),
                _summed(seconds for key, seconds in own.items() if users[key] > 1),
            )
            for cell, own in parts.items()
        },
        total=_summed(every.values()),
        unshared=_summed(seconds for own in parts.values() for seconds in own.values()),
    )


def _parts(result: CellResult) -> Iterator[tuple[str, Seconds]]:
    """The models that a cell needed, each with what it cost: experts, and what was served and scored."""
    for step, row in zip(result.cell.walk(), result.rows[1:], strict=False):
        yield step.expert.key, {stage: row.seconds.get(stage, 0.0) for stage in _OF_EXPERTS}
    for row in (*result.rows, *result.at_lengths.values()):
        yield row.scores_key, {stage: s for stage, s in row.seconds.items() if stage not in _OF_EXPERTS}


def _summed(parts: Iterable[Seconds]) -> Seconds:
    found = dict.fromkeys(STAGES, 0.0)
    for part in parts:
        for stage, seconds in part.items():
            found[stage] += seconds
    return found
