"""Pairs of cells: those of one selection, each with the one of another that agrees with it on everything else."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from time_ray.analysis.contenders import AXES, Cells
from time_ray.core.errors import UserError, some_of
from time_ray.core.selection import Selection
from time_ray.results import CellResult

_Place = tuple[str, ...]
_Side = Mapping[_Place, Mapping[int, CellResult]]


class Pairs(NamedTuple):
    """Pairs of cells that serve different models, each pair of models once.

    Attributes:
        names: by what all axes say that neither selection names; several, where these make the same models.
        a: one side of each pair.
        b: the other.
        seeds: of which all of these are finished.
        num_same: pairs that are left out, since both cells serve the same models.
        num_unfinished: cells that are selected and not done.

    """

    names: list[str]
    a: list[Cells]
    b: list[Cells]
    seeds: tuple[int, ...]
    num_same: int
    num_unfinished: int


def pairs_of(cells: Sequence[CellResult], a: Selection, b: Selection) -> Pairs:
    """Cells of A, each with that of B that agrees with it on the seed, and on all axes that neither of them names.

    Raises:
        UserError: one of them matches no cell, or several for one partner; nothing is finished on both sides, or no
            seed in all pairs; or both serve the same models throughout.

    """
    UserError.unless_none(
        f"{name} {side.text}: {fault}"
        for name, side in (("A", a), ("B", b))
        if (fault := side.unmatched([result.cell.axes for result in cells]))
    )
    free = [name for name in AXES if name not in a.axes and name not in b.axes]
    one, other = (_side(cells, side, free, f"{name} {side.text}") for name, side in (("A", a), ("B", b)))
    places = [place for place in one if place in other]
    if not places:
        raise UserError(f"A {a.text}, B {b.text}: no cell of A is finished together with its partner in B")
    shared = set.intersection(*(set(one[place]) & set(other[place]) for place in places))
    if not shared:
        had = [some_of(map(str, sorted({seed for place in side.values() for seed in place}))) for side in (one, other)]
        raise UserError(
            f"A {a.text}, B {b.text}: no seed is finished in all pairs (A has {had[0]}; B has {had[1]}); "
            "sweep both with the same seeds"
        )
    unfinished = [
        result for side in (a, b) for result in side.of(cells, lambda result: result.cell.axes) if not result.done
    ]
    return _distinct(free, places, (one, other), tuple(sorted(shared)), len(unfinished))


def _side(cells: Sequence[CellResult], side: Selection, free: Sequence[str], where: str) -> _Side:
    """What is finished of a selection, by place and seed."""
    meant = side.of(cells, lambda result: result.cell.axes)
    found: dict[_Place, dict[int, CellResult]] = {}
    for result in meant:
        place = tuple(result.cell.axes[name] for name in free)
        one = found.setdefault(place, {}).setdefault(result.cell.setting.seed, result)
        if one is not result:
            name = next(name for name in AXES if one.cell.axes[name] != result.cell.axes[name])
            values = " and ".join(f"{name}={cell.cell.axes[name]}" for cell in (one, result))
            raise UserError(f"{where}: {values} both match, and have one partner; name the {name}")
    done = {place: {seed: one for seed, one in seeds.items() if one.done} for place, seeds in found.items()}
    if not any(done.values()):
        what = f"none of its {len(meant)} cells is finished; finish the sweep" if meant else "no cell has all of these"
        raise UserError(f"{where}: {what}")
    return {place: seeds for place, seeds in done.items() if seeds}


def _distinct(
    free: Sequence[str], places: Sequence[_Place], sides: tuple[_Side, _Side], seeds: tuple[int, ...], unfinished: int
) -> Pairs:
    """A technique that nothing merges by makes no other pair."""
    varying = [number for number in range(len(free)) if len({place[number] for place in places}) > 1]
    names: dict[object, list[str]] = {}
    cells: dict[object, tuple[Cells, Cells]] = {}
    num_same = 0
    for place in places:
        a, b = ([side[place][seed] for seed in seeds] for side in sides)
        served = (_served(a), _served(b))
        if served[0] == served[1]:
            num_same += 1
            continue
        names.setdefault(served, []).append(" · ".join(place[number] for number in varying or range(len(free))))
        cells.setdefault(served, (a, b))
    if not cells:
        raise UserError("A and B serve the same models in every pair: nothing differs; name other cells")
    one, other = zip(*cells.values(), strict=True)
    return Pairs([", ".join(alike) for alike in names.values()], [*one], [*other], seeds, num_same, unfinished)


def _served(cells: Cells) -> tuple[str, ...]:
    return tuple(row.scores_key for result in cells for row in (*result.rows, *result.at_lengths.values()))
