"""The part of a grid with holes that is complete: what shares of variance can be of."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from time_ray.core.experiment import AXES
from time_ray.results import CellResult

Values = Mapping[str, tuple[str, ...]]  # by axis


def complete_part(cells: Sequence[CellResult]) -> tuple[list[CellResult], Values]:
    """A complete grid within these cells, and the values that it lacks, of the axes that lost some.

    Values leave one after the other, each time that with the largest share of holes, of equals the last. A complete
    grid is its own complete part.
    """
    left = {tuple(result.cell.axes[axis] for axis in AXES): result for result in cells}
    every = _levels(list(left))
    while (levels := _levels(list(left))) and len(left) < prod(map(len, levels)):
        shares = {
            (axis, place, value): _holes(axis, value, list(left), levels)
            for axis, values in enumerate(levels)
            for place, value in enumerate(values)
        }
        axis, _, value = max(shares, key=lambda one: (shares[one], one))
        left = {place: result for place, result in left.items() if place[axis] != value}
    lost = (tuple(value for value in all_ if value not in kept) for all_, kept in zip(every, levels, strict=True))
    return list(left.values()), {axis: values for axis, values in zip(AXES, lost, strict=True) if values}


def holes(cells: Sequence[CellResult]) -> list[str]:
    """What a complete grid of the same values would have besides, in words."""
    places = [tuple(result.cell.axes[axis] for axis in AXES) for result in cells]
    there = set(places)
    return [_named(*place) for place in product(*_levels(places)) if place not in there]


def _levels(places: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """The values of every axis, in order."""
    return [list(dict.fromkeys(values)) for values in zip(*places, strict=True)]


def _holes(axis: int, value: str, places: Sequence[tuple[str, ...]], levels: Sequence[Sequence[str]]) -> float:
    """The share of the places with this value that no cell has."""
    whole = prod(len(values) for number, values in enumerate(levels) if number != axis)
    return 1 - sum(place[axis] == value for place in places) / whole


def _named(init: str, deploy: str, technique: str, model: str, budget: str, seed: str) -> str:
    return f"{init}/{deploy} {technique} · {model} {budget} seed {seed}"
