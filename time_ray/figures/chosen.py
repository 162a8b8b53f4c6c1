"""Which cells figures show one by one: the leader, those that may be the best, and what they are compared with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from time_ray.analysis.ranking import Ranked, Ranking
from time_ray.figures.places import named, varying
from time_ray.results import CellResult

MOST_RIVALS = 6

Role = Literal["leader", "rival", "baseline"]


@dataclass(frozen=True)
class Chosen:
    """One of them: by the name that it has in figures."""

    name: str
    role: Role
    results: Sequence[CellResult]


def chosen(ranked: Ranking) -> list[Chosen]:
    """The leader first, then rivals: what may be the best, or with one seed the next ones; then baselines.

    Baselines are those of the leader's model and budget.
    """
    if not ranked.rows:
        return []
    axes = varying([row.contender.axes for row in ranked.rows])
    leader, *others = ranked.rows
    rivals = [row for row in others if row.tied is not False and not row.baseline][:MOST_RIVALS]
    return [
        Chosen(f"leader: {named(leader.contender.axes, axes)}", "leader", leader.results),
        *(Chosen(named(row.contender.axes, axes), "rival", row.results) for row in rivals),
        *baselines(ranked),
    ]


def baselines(ranked: Ranking) -> Iterator[Chosen]:
    """The base, plain fine-tuning and training on all tasks at once, as far as they are there."""
    home = ranked.leader.contender.axes
    found = {row.baseline: row for row in (*ranked.baselines, *ranked.rows[1:]) if _is_of(row, home)}
    for name in ("base", "ft/ft", "multitask"):
        if name in found:
            yield Chosen(name, "baseline", found[name].results)


def _is_of(row: Ranked, home: Mapping[str, str]) -> bool:
    axes = row.contender.axes
    return axes["model"] == home["model"] and (row.baseline == "base" or axes["budget"] == home["budget"])
