"""Places of a grid: the finished cells of all seeds at one point of every other axis, and where they stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from time_ray.analysis.contenders import AXES, identity
from time_ray.analysis.ranking import Ranked, Ranking
from time_ray.core.statistics import mean
from time_ray.results import CellResult


@dataclass(frozen=True, eq=False)
class Place:
    """One point on every axis but the seed.

    Attributes:
        axes: where it is.
        finished: its finished cells, seed by seed; there may be none.
        asked: how many seeds it should have.
        row: what the ranking says of it; None where it is not ranked.

    """

    axes: Mapping[str, str]
    finished: tuple[CellResult, ...]
    asked: int
    row: Ranked | None

    def mean_of(self, metric: str) -> float | None:
        """Of what is finished, as it was served, on all test images; None where it is not defined."""
        values = [value for result in self.finished if (value := result.final[metric]) is not None]
        return mean(values) if values else None

    @property
    def merges(self) -> bool:
        """Whether its technique changes what it serves: it shares its models with no other technique."""
        return self.row is not None and self.row.contender.axes["technique"] == self.axes["technique"]


def places(results: Sequence[CellResult], ranked: Ranking) -> list[Place]:
    """Every place of the grid, in the order of the results.

    Cells that serve the same models are one row of the ranking, and several places.
    """
    rows = {identity(row.contender.axes, row.contender.results.values()): row for row in ranked.rows}
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for result in results:
        if not result.cell.multitask:
            axes = result.cell.axes
            groups.setdefault(tuple(axes[name] for name in AXES), []).append(result)
    found = []
    for values, cells in groups.items():
        axes = dict(zip(AXES, values, strict=True))
        finished = tuple(sorted(filter(lambda cell: cell.done, cells), key=lambda cell: cell.cell.setting.seed))
        found.append(Place(axes, finished, len(cells), rows.get(identity(axes, finished))))
    return found


def varying(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The axes, but for the seed, on which these differ."""
    return [name for name in AXES if len({row[name] for row in rows}) > 1]


def named(axes: Mapping[str, str], varying_axes: Sequence[str]) -> str:
    """A cell in one line: its strategies, and what else cells differ on."""
    others = [axes[name] for name in AXES[2:] if name in varying_axes]
    return " ".join([f"{axes['init']}/{axes['deploy']}", *others])
