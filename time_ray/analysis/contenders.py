"""Contenders: what competes for Best-in-TIME. A cell without its seed; cells that serve the same models are one."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from time_ray.results import CellResult

AXES = ("init", "deploy", "technique", "model", "budget")  # all but the seed
ANY = "any"  # the technique of cells that merge nothing

Cells = Sequence[CellResult]  # one place on every axis but the seed, seed by seed


@dataclass(frozen=True, eq=False)
class Contender:
    """One place on every axis but the seed, with its finished cells by seed."""

    axes: Mapping[str, str]
    results: Mapping[int, CellResult]

    @property
    def name(self) -> str:
        """It in one line, for people."""
        axes = self.axes
        return f"{axes['init']}/{axes['deploy']} {axes['technique']} · {axes['model']} {axes['budget']}"

    def cells(self, seeds: Sequence[int]) -> Cells:
        """Those of these seeds, in that order."""
        return [self.results[seed] for seed in seeds]


class Comparable(NamedTuple):
    """Contenders with the seeds that all of them have, and those that cannot be compared, since they lack some."""

    contenders: list[Contender]
    seeds: tuple[int, ...]
    lacking: list[Contender]


def identity(axes: Mapping[str, str], results: Iterable[CellResult]) -> tuple[object, ...]:
    """What tells cells from those that serve other models: their place but for the technique, and models by seed."""
    served = sorted((one.cell.setting.seed, *(row.scores_key for row in one.rows)) for one in results)
    return (*(axes[name] for name in AXES if name != "technique"), *served)


def contenders(results: Sequence[CellResult]) -> list[Contender]:
    """All that has a finished cell, in the order of the results."""
    groups: dict[tuple[str, ...], dict[int, CellResult]] = {}
    for result in results:
        if result.done:
            named = result.cell.axes
            axes = tuple(named[name] for name in AXES)
            groups.setdefault(axes, {})[result.cell.setting.seed] = result
    found = [Contender(dict(zip(AXES, axes, strict=True)), by_seed) for axes, by_seed in groups.items()]
    return list(_merged(found))


def _merged(found: Sequence[Contender]) -> Iterator[Contender]:
    """Contenders that differ in the technique alone, and serve the same models, are one."""
    techniques: dict[tuple[str, ...], set[str]] = {}  # by place on the other axes
    for contender in found:
        techniques.setdefault(_place(contender), set()).add(contender.axes["technique"])
    alike: dict[tuple[object, ...], list[Contender]] = {}
    for contender in found:
        alike.setdefault(identity(contender.axes, contender.results.values()), []).append(contender)
    for group in alike.values():
        names = [contender.axes["technique"] for contender in group]
        technique = common_technique(names, techniques[_place(group[0])])
        yield Contender({**group[0].axes, "technique": technique}, group[0].results)


def _place(contender: Contender) -> tuple[str, ...]:
    return tuple(value for name, value in contender.axes.items() if name != "technique")


def common_technique(names: Sequence[str], every: Collection[str]) -> str:
    """What the technique is called of cells that serve the same models.

    Args:
        names: their techniques.
        every: all techniques of cells with the same init, deploy, model and budget.

    """
    return ANY if len(names) > 1 and set(names) == set(every) else ", ".join(names)


def comparable(found: Sequence[Contender]) -> Comparable:
    """Those with every seed, if they are several; else all that share a seed, over the seeds that they share."""
    if not found:
        return Comparable([], (), [])
    everything = set().union(*(contender.results for contender in found))
    whole = [contender for contender in found if contender.results.keys() == everything]
    if len(whole) > 1 or len(found) == 1:
        return Comparable(whole, tuple(sorted(everything)), [one for one in found if one not in whole])
    kept = sorted(found, key=lambda contender: -len(contender.results))
    while not (shared := set.intersection(*(set(contender.results) for contender in kept))):
        kept.pop()
    return Comparable(
        [one for one in found if one in kept], tuple(sorted(shared)), [one for one in found if one not in kept]
    )
