"""Cells at their best lengths: chosen on one half of the test images, measured on the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.contenders import Cells
from time_ray.analysis.halves import Halves, MissingOutcomesError, Part
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError
from time_ray.core.statistics import mean


@dataclass(frozen=True, eq=False)
class Measured:
    """Places of the grid, each at its length.

    Attributes:
        lengths: of the last models, place by place.
        part: the test images that values are of: those that lengths were not chosen on, where any was chosen. All of
            them where there was no choice, or scores were kept without outcomes.
        values: [places, seeds] of the metric.

    """

    lengths: tuple[float, ...]
    part: Part
    values: NDArray[np.float64]


def measured(
    places: Sequence[Cells], halves: Halves, criterion: Criterion, *, as_served: Sequence[Cells] = ()
) -> Measured:
    """Every place at its best length where lengths were measured with every seed, if the criterion says so, else at 1.

    Args:
        places: each with the same seeds.
        halves: where outcomes are.
        criterion: the metric, over which tasks, and whether at best lengths; its floor does not count.
        as_served: more places, which come after the others and are at length 1 whatever was measured.

    Raises:
        UserError: the metric is not defined for one of the cells.

    """
    choices = [*(lengths_of(cells, criterion) for cells in places), *((1.0,) for _ in as_served)]
    places = [*places, *as_served]
    if all(len(lengths) == 1 for lengths in choices):
        return _measured(places, choices, "all", "all", halves, criterion)
    try:
        return _measured(places, choices, "select", "report", halves, criterion)
    except MissingOutcomesError:
        return _measured(places, choices, "all", "all", halves, criterion)


def lengths_of(cells: Cells, criterion: Criterion) -> tuple[float, ...]:
    """Lengths that may be chosen, the nearest to 1 first, so that it is taken of equals.

    Those that were measured with every seed; only last models have others than 1.
    """
    if criterion.lengths == "one" or criterion.over != "end":
        return (1.0,)
    others = set.intersection(*(set(result.at_lengths) for result in cells))
    return (1.0, *sorted(others, key=lambda length: (abs(length - 1), length)))


def _measured(
    places: Sequence[Cells],
    choices: Sequence[Sequence[float]],
    choose_on: Part,
    part: Part,
    halves: Halves,
    criterion: Criterion,
) -> Measured:
    loss = criterion.metric.loss

    def values(cells: Cells, length: float, images: Part) -> list[float]:
        found = [halves.value(result, criterion.by, images, length=length, over=criterion.over) for result in cells]
        return [_defined(value, criterion) for value in found]

    def best(cells: Cells, lengths: Sequence[float]) -> float:
        if len(lengths) == 1:
            return lengths[0]
        return min(lengths, key=lambda length: loss(mean(values(cells, length, choose_on))))

    lengths = tuple(best(cells, choice) for cells, choice in zip(places, choices, strict=True))
    found = [values(cells, length, part) for cells, length in zip(places, lengths, strict=True)]
    return Measured(lengths, part, np.array(found))


def _defined(value: float | None, criterion: Criterion) -> float:
    if value is None:
        raise UserError(f"--by {criterion.by}: it is not defined for these cells; take another metric, such as ka")
    return value
