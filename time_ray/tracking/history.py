"""Sweeps as they were started: what MLflow is told of a sweep besides its results, kept in the store like these.

So all of MLflow can be made again from the store alone, at any time, with the same names, tags and parents.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from time_ray.config import dumped, plain_values
from time_ray.core.errors import UserError
from time_ray.core.experiment import AXES
from time_ray.core.keys import key_of
from time_ray.core.secrets import hidden
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.version import provenance

_KIND = "sweeps"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """A sweep as it was first started."""

    key: str
    experiment: str
    about: str
    written: str  # the experiment, as YAML
    values: Mapping[str, Any]  # the same, read
    cells: frozenset[str]
    varying: frozenset[str]  # the axes on which its cells differ
    versions: dict[str, str]
    seconds: float  # since the epoch


def sweep_key(study: Study) -> str:
    """The name under which a sweep is found again: its experiment and its cells."""
    return key_of("sweep", study.experiment.name, sorted(cell.key for cell in study.everything))


def owners(study: Study, store: Store) -> dict[str, Started]:
    """For each cell the sweep that was the first to have it: the one that is started now, if none had it before."""
    found = _owners(study, store)
    if any(cell.key not in found for cell in study.everything):
        store.record(_KIND, sweep_key(study), _record(study))
        found = _owners(study, store)
    return found


def started(experiment: str, store: Store) -> list[Started]:
    """Every sweep of an experiment, by its name, that was ever started on the storage; the first one first."""
    return [sweep for sweep in all_started(store) if sweep.experiment == experiment]


def all_started(store: Store) -> list[Started]:
    """Every sweep that was ever started on the storage; the first one first."""
    entries = ((key, store.entry(_KIND, key)) for key in store.keys(_KIND))
    read = (_started(key, entry) for key, entry in entries if entry is not None)
    return sorted((sweep for sweep in read if sweep is not None), key=lambda sweep: (sweep.seconds, sweep.key))


def _owners(study: Study, store: Store) -> dict[str, Started]:
    first: dict[str, Started] = {}
    for sweep in started(study.experiment.name, store):
        first = {**dict.fromkeys(sweep.cells, sweep), **first}
    return {cell.key: first[cell.key] for cell in study.everything if cell.key in first}


def _record(study: Study) -> dict[str, Any]:
    experiment = study.experiment
    written = {**experiment.written(), "storage": hidden(experiment.storage) if experiment.storage else None}
    axes = [cell.axes for cell in study.cells]
    return {
        "experiment": experiment.name,
        "about": experiment.about,
        "written": dumped(written),
        "cells": sorted(cell.key for cell in study.everything),
        "varying": sorted({name for row in axes for name in row if row[name] != axes[0][name]}),
        "versions": provenance(),
        "seconds": time.time(),
    }


def _started(key: str, entry: dict[str, Any]) -> Started | None:
    """None, with a warning, for an entry that no version of time_ray has written."""
    name = f"{_KIND}/{key}"
    try:
        values = plain_values(entry["written"], name)
        UserError.unless_none(f"{name}: no {axis}" for axis in AXES if not isinstance(values.get(axis), list))
    except UserError as error:
        log.warning("%s is no record of a sweep (%s); it is passed over", name, error)
        return None
    sets = {what: frozenset(entry[what]) for what in ("cells", "varying")}
    return Started(**{**entry, **sets, "key": key, "values": values})
