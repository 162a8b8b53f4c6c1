"""Rules that thin out a grid: which cells `exclude` and `only` leave, and which of their words mean nothing."""

from collections.abc import Iterator, Mapping, Sequence

from time_ray.core.errors import unknown
from time_ray.core.experiment import CellRule
from time_ray.core.grid import Cell
from time_ray.core.selection import meant


def kept(cells: Sequence[Cell], exclude: Sequence[CellRule], only: Sequence[CellRule]) -> tuple[Cell, ...]:
    """The cells that no rule of `exclude` matches and, where `only` has rules, at least one of these does.

    A rule matches a cell that has one of its values on every axis that it names; values mean what they mean in a
    selection.
    """
    if not exclude and not only:
        return tuple(cells)
    known = _values(cells)
    excluded, included = ([_meanings(rule, known) for rule in rules] for rules in (exclude, only))

    def stays(axes: Mapping[str, str]) -> bool:
        return not _is_matched(axes, excluded) and (not included or _is_matched(axes, included))

    return tuple(cell for cell in cells if stays(cell.axes))


def unmatched(cells: Sequence[Cell], rules: Sequence[CellRule]) -> Iterator[tuple[int, str, str]]:
    """Values that no cell of the whole grid has: the number of the rule, the axis, and what is wrong."""
    known = _values(cells) if rules else {}
    for number, rule in enumerate(rules):
        for axis, values in rule.items():
            for value in values:
                if not meant(known[axis], value):
                    yield number, axis, unknown(axis, value, known[axis])


def _values(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """What cells have on every axis, in order."""
    places = [cell.axes for cell in cells]
    return {axis: list(dict.fromkeys(place[axis] for place in places)) for axis in places[0]}


def _meanings(rule: CellRule, known: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    return {axis: set().union(*(meant(known[axis], value) for value in values)) for axis, values in rule.items()}


def _is_matched(axes: Mapping[str, str], rules: Sequence[Mapping[str, set[str]]]) -> bool:
    return any(all(axes[axis] in values for axis, values in rule.items()) for rule in rules)
