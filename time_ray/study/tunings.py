"""Searches for parameters: one for each technique with ranges and each place where it merges."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

from time_ray import merging
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.grid import Cell, last
from time_ray.core.parameter_range import Range
from time_ray.core.recipe import ResolvedTechnique
from time_ray.core.tuning import Params, Tuning, TuningSettings
from time_ray.study.faults import Faults
from time_ray.study.techniques import resolved_technique

_LOW, _HIGH = attrgetter("low"), attrgetter("high")


def find_tunings(
    experiment: Experiment, techniques: Sequence[ResolvedTechnique], cells: Sequence[Cell]
) -> tuple[Tuning, ...]:
    """A search for each technique with ranges and each place where it merges. Raises StudyError with every fault."""
    faults, found = Faults(), list[Tuning]()
    for index, (spec, technique) in enumerate(zip(experiment.technique, techniques, strict=True)):
        if not spec.ranges:
            continue
        places: dict[tuple[str, ...], list[Cell]] = {}
        for cell in cells:
            if cell.technique is technique:
                places.setdefault(cell.place, []).append(cell)
        every = [_tuning(experiment.tuning, spec, place) for place in places.values()]
        trained = [one for one in every if _differs(one, lambda cell: cell.trajectory)]
        served = [one for one in every if _differs(one, lambda cell: last(cell).key)]
        found += served
        if trained:
            names = ", ".join(dict.fromkeys(one.cells[0].init.name for one in trained))
            text = "a range is searched where the technique only deploys"
            rule = f"exclude: [{{init: [{names}], technique: {spec.name}}}]"
            faults.add([(("technique", index), f"{text}, and with init {names} it trains, too; write {rule}")])
        elif not served:
            text = "there is nothing to search on, as nothing that is deployed depends on these ranges"
            faults.add([(("technique", index), f"{text}; give deploy: all, or values instead of ranges")])
    faults.unless_none()
    called = [one.name for one in found]
    return tuple(replace(one, named=one.label) if called.count(one.name) > 1 else one for one in found)


def candidate(tuning: Tuning, params: Params) -> tuple[Cell, ...]:
    """The cells of a tuning with these parameters, as if they had been written by hand."""
    technique = resolved_technique(TechniqueSpec(name=tuning.technique, params={**tuning.fixed, **params}))
    return tuple(replace(cell, technique=technique) for cell in tuning.cells)


def _tuning(settings: TuningSettings, spec: TechniqueSpec, cells: Sequence[Cell]) -> Tuning:
    ranges = {name: replace(found, whole=_is_whole(spec, name, found)) for name, found in spec.ranges.items()}
    defaults = {name: merging.TECHNIQUES[spec.name].parameters[name].default for name in ranges}
    inside = all(
        isinstance(value, int | float) and ranges[name].low <= value <= ranges[name].high
        for name, value in defaults.items()
    )
    return Tuning(
        spec.name, spec.label, spec.fixed.params, ranges, defaults if inside else None, settings, tuple(cells)
    )


def _is_whole(spec: TechniqueSpec, name: str, found: Range) -> bool:
    return isinstance(merging.TECHNIQUES[spec.name].parameters[name].read(name, found.low), int)


def _differs(tuning: Tuning, what: Callable[[Cell], str]) -> bool:
    """Whether something of the cells depends on what is searched."""
    ends = ({name: bound(one) for name, one in tuning.ranges.items()} for bound in (_LOW, _HIGH))
    low, high = (what(candidate(tuning, end)[0]) for end in ends)
    return low != high
