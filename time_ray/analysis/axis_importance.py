"""Which axis of a sweep matters, by the scores of its whole grid: as served, and with cells at their best lengths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from time_ray.analysis.best_length import Measured, measured
from time_ray.analysis.complete_part import Values, complete_part
from time_ray.analysis.contenders import AXES
from time_ray.analysis.halves import Halves
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError, some_of
from time_ray.core.importance import Importance, Interval, importance
from time_ray.results import CellResult


@dataclass(frozen=True, kw_only=True)
class AxisImportance:
    """Shares of the variance between cells.

    Attributes:
        criterion: the metric, and over which tasks.
        axes: those with several values, and these.
        seeds: of every cell.
        at_one: every cell as it was served, on all test images.
        at_best: every cell at its best length; None where no lengths were measured.
        halves: whether these lengths were chosen on one half of the test images and `at_best` is of the other.
        left_out: values of axes that no share is of, as the grid has holes there.
        num_left_out: the cells with these values.

    """

    criterion: Criterion
    axes: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    at_one: Importance
    at_best: Importance | None
    halves: bool
    left_out: Values = field(default_factory=dict)
    num_left_out: int = 0

    def as_dict(self) -> dict[str, object]:
        """What `importance -f json` prints."""
        return {
            "metric": self.criterion.by,
            "over": self.criterion.over,
            "axes": {name: list(values) for name, values in self.axes.items()},
            "seeds": list(self.seeds),
            "halves": self.halves,
            "left_out": {name: list(values) for name, values in self.left_out.items()},
            "at_one": _as_dict(self.at_one),
            "at_best": None if self.at_best is None else _as_dict(self.at_best),
        }


def axis_importance(
    results: Sequence[CellResult], halves: Halves, criterion: Criterion, *, to_finish: str
) -> AxisImportance:
    """The share of every axis that has several values, and of their interactions.

    A cell that merges nothing has the same score for every technique, as it is served whatever the technique. Of a grid
    with holes the shares are those of its complete part.

    Args:
        results: of all cells of a grid, and of what was trained on all tasks at once, which does not count.
        halves: where outcomes are.
        criterion: the metric, and over which tasks; nothing else of it counts.
        to_finish: the command that finishes the grid.

    Raises:
        UserError: cells are not finished, no axis has several values, or the metric is not defined.

    """
    cells = [result for result in results if not result.cell.multitask]
    holes = [result.cell.name for result in cells if not result.done]
    if holes:
        raise UserError(
            f"{len(holes)} of {len(cells)} cells are not finished ({some_of(holes)}), and shares are of whole grids; "
            f"run: {to_finish}"
        )
    every = len(cells)
    cells, left_out = complete_part(cells)
    levels = {name: tuple(dict.fromkeys(result.cell.axes[name] for result in cells)) for name in AXES}
    axes = {name: values for name, values in levels.items() if len(values) > 1}
    if not axes:
        raise UserError("every axis but the seed has one value, so none can matter; give init, say, several")
    seeds = tuple(sorted({result.cell.setting.seed for result in cells}))
    places = _in_order(cells, axes)

    def shares(found: Measured) -> Importance:
        return importance(found.values.reshape(*map(len, axes.values()), len(seeds)), list(axes))

    served = measured(places, halves, replace(criterion, lengths="one"))
    any_lengths = criterion.over == "end" and any(result.at_lengths for result in cells)
    moved = measured(places, halves, replace(criterion, lengths="best")) if any_lengths else None
    return AxisImportance(
        criterion=criterion,
        axes=axes,
        seeds=seeds,
        at_one=shares(served),
        at_best=None if moved is None else shares(moved),
        halves=moved is not None and moved.part == "report",
        left_out=left_out,
        num_left_out=every - len(cells),
    )


def _in_order(cells: Sequence[CellResult], axes: Mapping[str, Sequence[str]]) -> list[list[CellResult]]:
    """The grid's places in reading order of the axes, each with its seeds in order."""

    def place(result: CellResult) -> tuple[int, ...]:
        own = result.cell.axes
        return tuple(values.index(own[name]) for name, values in axes.items())

    places: dict[tuple[int, ...], list[CellResult]] = {}
    for result in sorted(cells, key=lambda result: result.cell.setting.seed):
        places.setdefault(place(result), []).append(result)
    return [places[where] for where in sorted(places)]


def _as_dict(found: Importance) -> dict[str, object]:
    headline = found.headline
    return {
        "shares": [
            {"axes": list(share.axes), "share": share.value, **_bounds(share.interval)} for share in found.shares
        ],
        "headline": {"ratio": headline.value, **_bounds(headline.interval)},
        "sd": math.sqrt(found.variance),
    }


def _bounds(interval: Interval | None) -> dict[str, float | None]:
    """JSON has no infinity: what has no bound is null."""
    low, high = interval or (None, None)
    return {"low": low, "high": None if high is None or math.isinf(high) else high}
