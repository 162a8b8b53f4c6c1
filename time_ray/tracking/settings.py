"""Settings of an experiment as flat names and values: which differ from the defaults, and which from sweep to sweep."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from time_ray.core.experiment import AXES, Experiment
from time_ray.tracking.history import Started

_NO_SETTING = ("name", "about", "plugins", "storage", *AXES)  # said elsewhere, or of no weight
_OF_THE_SWEEP = (
    "run",
    "multitask",
    "evaluation.lengths",
    "exclude",
    "only",
    "search",
    "tuning",
)  # a cell is the same without them


class Differing(NamedTuple):
    """What is not the same in all sweeps of an experiment: axes with several values, and other settings."""

    axes: frozenset[str]
    settings: frozenset[str]


def settings(written: Mapping[str, Any]) -> dict[str, str]:
    """Every setting but the axes, by its path with dots."""
    return {name: text for name, text in _flat(written) if name.split(".", maxsplit=1)[0] not in _NO_SETTING}


def set_otherwise(written: Mapping[str, Any], also: frozenset[str] = frozenset()) -> dict[str, str]:
    """Settings that are not the default, and those that are named."""
    usual = _defaults()
    return {name: text for name, text in settings(written).items() if name in also or usual.get(name) != text}


def of_cells(found: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that decide what a cell is."""
    return {name: text for name, text in found.items() if not _is_under(name, _OF_THE_SWEEP)}


def differing(sweeps: Sequence[Started]) -> Differing:
    """What the sweeps of an experiment do not have in common."""
    written = [sweep.values for sweep in sweeps]
    values = {axis: {shown(value) for one in written for value in one[axis]} for axis in AXES}
    pairs = {pair for one in written for pair in of_cells(settings(one)).items()}
    names = [name for name, _ in pairs]
    return Differing(
        frozenset(axis for axis, found in values.items() if len(found) > 1),
        frozenset(name for name in names if names.count(name) > 1),
    )


def shown(value: object) -> str:
    """A value as a parameter has it: words as they are, lists with commas, what has a name as a label, else JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        said = ",".join(f"{name}={shown(one)}" for name, one in value.items() if name != "name")
        return f"{value['name']}({said})" if said else value["name"]
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(one) for one in value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


@cache
def _defaults() -> Mapping[str, str]:
    """Where something must be given, what is given here is no default: it always counts as set."""
    least: dict[str, Any] = dict.fromkeys(("init", "deploy"), "zs")
    least |= {"name": "x", "technique": "average", "model": "mini-tiny", "budget": "1 steps", "data": "mini"}
    found = settings(Experiment.model_validate(least).written())
    return {name: text for name, text in found.items() if name not in ("data.adaptation", "data.evaluation")}


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, one in value.items():
        if isinstance(one, Mapping) and one:
            yield from _flat(one, f"{path}{name}.")
        else:
            yield f"{path}{name}", shown(one)


def _is_under(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)
