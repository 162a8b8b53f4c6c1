"""What tells runs apart: the parameters and the names of cells, of their summaries over seeds, and of sweeps."""

import time
from collections.abc import Iterable, Mapping

from time_ray.clip.preprocessing import resolve
from time_ray.core.experiment import AXES, Experiment
from time_ray.core.grid import Cell
from time_ray.core.strategies import Strategy
from time_ray.core.training import Training
from time_ray.tracking.history import Started
from time_ray.tracking.settings import Differing, of_cells, set_otherwise, shown

_IN_EVERY_NAME = ("init", "deploy", "technique")


def of_cell(cell: Cell, special: Mapping[str, str], step_gflops: float | None) -> dict[str, str]:
    """Parameters of a cell's run: its place on every axis, what that place means, and every setting that is not usual.

    Args:
        cell: of the experiment.
        special: see `special_settings`.
        step_gflops: operations of an optimiser step; None where nobody counted them.

    """
    setting = cell.setting
    trainings = setting.trainings
    found = {
        **cell.axes,
        "tasks": str(len(trainings)),
        "patch": f"{cell.deploy.patch:g}",
        "budget.steps": str(trainings[0].steps),
        **{f"preprocess.{name}": str(value) for name, value in resolve(setting.model).as_dict().items()},
    }
    if step_gflops is not None:
        found["budget.gflops"] = f"{step_gflops * sum(training.steps for training in trainings):.6g}"
    if not cell.multitask:
        found |= {**_technique(cell), **_strategies({"init": cell.init, "deploy": cell.deploy})}
    return {**found, **special}


def special_settings(experiment: Experiment, training: Training, differ: Differing) -> dict[str, str]:
    """Settings of cells that are not the default, and those in which the sweeps of the experiment differ.

    Args:
        experiment: with the settings that all cells share.
        training: of a model, with its own learning rate.
        differ: what the sweeps of this name do not have in common.

    """
    written = {**experiment.written(), "training": training.model_dump(mode="json")}
    return of_cells(set_otherwise(written, differ.settings))


def of_sweep(sweep: Started, seeds: Iterable[int]) -> dict[str, str]:
    """Parameters of a sweep's run: the values of its axes, every setting that is not usual, and how much there is."""
    axes = {name: shown(sweep.values[name]) for name in AXES}
    return {**axes, **set_otherwise(sweep.values), "cells": str(len(sweep.cells)), "seeds": str(len(set(seeds)))}


def cell_name(cell: Cell, special: Mapping[str, str], differ: Differing) -> str:
    """The name of a cell's run: what differs within the experiment, and nothing else."""
    return _name(cell, special, differ, [axis for axis in AXES if axis in differ.axes])


def summary_name(cell: Cell, special: Mapping[str, str], differ: Differing) -> str:
    """The name of the run over all seeds."""
    return _name(cell, special, differ, [axis for axis in AXES if axis in differ.axes and axis != "seed"])


def sweep_name(sweep: Started) -> str:
    """The name of a sweep's run."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.seconds))
    return f"sweep of {len(sweep.cells)} cells, {when}"


def _name(cell: Cell, special: Mapping[str, str], differ: Differing, axes: Iterable[str]) -> str:
    place = cell.axes
    first = place["init"] if cell.multitask else f"{place['init']}/{place['deploy']} {place['technique']}"
    others = [f"seed {place[axis]}" if axis == "seed" else place[axis] for axis in axes if axis not in _IN_EVERY_NAME]
    said = [f"{name}={special[name]}" for name in sorted(differ.settings) if name in special]
    return " ".join([first, *others, *said])


def _technique(cell: Cell) -> dict[str, str]:
    """The technique and all its parameters, with those that nobody set."""
    technique = cell.technique
    params = {**technique.pair_params, **technique.params}
    name = technique.written_as or technique.name
    return {"technique.name": name, **{f"technique.{key}": shown(value) for key, value in params.items()}}


def _strategies(sides: Mapping[str, Strategy]) -> dict[str, str]:
    """By side, as in `init.ema.weight`; and without the side, as in `ema.weight`, where both do not say different."""
    found: dict[str, str] = {}
    short: dict[str, set[str]] = {}
    for side, strategy in sides.items():
        found[f"{side}.name"] = strategy.name
        for name in type(strategy).model_fields.keys() - {"patch"}:
            key, text = f"{strategy.name}.{name}", shown(getattr(strategy, name))
            found[f"{side}.{key}"] = text
            short.setdefault(key, set()).add(text)
    return found | {key: next(iter(texts)) for key, texts in short.items() if len(texts) == 1}
