"""What was meant by a key that an experiment does not have: a nested one, a parameter's owner, or the nearest."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from time_ray import merging
from time_ray.core.errors import nearest
from time_ray.core.experiment import AXES, Experiment
from time_ray.core.strategies import STRATEGIES


def hint_for(key: str, value: object, experiment: Mapping[str, Any], *, on_command_line: bool) -> str:
    """The end of a fault, for a key at the top of an experiment.

    Args:
        key: which is none.
        value: what was given for it.
        experiment: as it was written.
        on_command_line: it stands there, where values in brackets need quotes.

    """
    owner = _owner(key, experiment)
    if owner is not None:
        axis, name = owner
        written = f"{{name: {name}, {key}: {value}}}"
        return f"; it belongs to {name}: " + (f"'{axis}={written}'" if on_command_line else f"{axis}: {written}")
    singular = key.removesuffix("s")
    if singular == "seed" and isinstance(value, int) and value > 1:
        return f"; write seed={str(list(range(value))).replace(' ', '')} for {value} of them"
    if singular in Experiment.model_fields:
        return f"; did you mean '{singular}'?"
    inner = [path for path in _paths(Experiment) if path.rpartition(".")[2].removesuffix("s") == singular]
    return f"; did you mean '{inner[0]}'?" if inner else nearest(key, Experiment.model_fields)


def _owner(key: str, experiment: Mapping[str, Any]) -> tuple[str, str] | None:
    """The axis and the name that a parameter belongs to: one that the experiment has, else the first that there is."""
    tables: Mapping[str, dict[str, Any]] = {
        "deploy": {name: strategy.model_fields for name, strategy in STRATEGIES.items()},
        "init": {name: strategy.model_fields for name, strategy in STRATEGIES.items()},
        "technique": {name: row.parameters for name, row in merging.TECHNIQUES.items()},
    }
    owners = [(axis, name) for axis, table in tables.items() for name, of in table.items() if key in of]
    named = {(axis, name) for axis in tables for name in _names(experiment.get(axis))}
    return next((owner for owner in owners if owner in named), owners[0] if owners else None)


def _names(entries: object) -> Iterator[str]:
    """The names among the entries of an axis."""
    for entry in entries if isinstance(entries, list) else [entries]:
        name = entry.get("name") if isinstance(entry, dict) else entry
        if isinstance(name, str):
            yield name


def _paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Keys within sections, as overrides name them."""
    for name, field in section.model_fields.items():
        if prefix:
            yield prefix + name
        kinds = (field.annotation, *get_args(field.annotation))
        if (prefix or name not in AXES) and name != "by_model":
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from _paths(kind, f"{prefix}{name}.")
