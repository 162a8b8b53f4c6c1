"""Stores that hold results without any training: outcomes of test images as they are told, exact on both halves."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from time_ray.core.grid import Cell, Setting
from time_ray.core.outcomes import Question, accuracies, labelled, packed
from time_ray.core.recipe import Base, Recipe
from time_ray.opened import Opened, open_experiment
from time_ray.store.store import Store

SCORED: dict[str, object] = {
    "name": "scored",
    "init": ["zs", "ft", "ema", "all"],
    "deploy": ["ft", "ema", "all"],
    "technique": ["average", "ties"],
    "model": "mini-tiny",
    "budget": "2 steps",
    "seed": [0, 1],
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 2},
}
IMAGES = 200  # of every dataset: every other one belongs to the half that is selected on
Percents = Mapping[str, float | tuple[float, float]]  # by dataset; two numbers: on the half that selects, and reports
Scorer = Callable[[Cell, int, float], Percents]  # of a cell after a task, at a length


def record(store: Store, cells: Iterable[Cell], scorer: Scorer) -> None:
    """The cells are finished, with these scores. Where cells share a model, the first of them counts."""
    for cell in cells:
        setting = cell.setting
        final: Recipe = setting.base
        _score(store, setting, setting.base, scorer(cell, 0, 1.0))
        for task, step in enumerate(cell.walk(), start=1):
            final = step.deployed
            store.record("weights", step.expert.key, {"seconds": {}})
            _score(store, setting, final, scorer(cell, task, 1.0))
        for length, recipe in cell.at_lengths(final).items():
            _score(store, setting, recipe, scorer(cell, len(setting.trainings), length))
        store.record("weights", final.key, {"seconds": {}})


def experiment(folder: Path, **changes: object) -> Opened:
    """An experiment on a dataset that is learned and one that is held out; nothing of these is drawn."""
    path = folder / "scored.yaml"
    path.write_text(yaml.safe_dump({**SCORED, "storage": str(folder / "runs"), **changes}, sort_keys=False))
    return open_experiment(path)


def right(percent: float | tuple[float, float]) -> np.ndarray[Any, Any]:
    """Outcomes of IMAGES images, of which so many are right, on either half."""
    halves = percent if isinstance(percent, tuple) else (percent, percent)
    return np.repeat(np.arange(IMAGES // 2), 2) < np.resize(np.array(halves), IMAGES)


def _score(store: Store, setting: Setting, recipe: Recipe, percents: Percents) -> None:
    key = setting.scores_key(recipe)
    if store.entry("scores", key) is not None:
        return
    outcomes = {Question(name): right(percent) for name, percent in percents.items()}
    arrays: dict[str, Any] = dict(packed(outcomes))
    about: dict[str, object] = {"accuracy": accuracies(outcomes), "distance": 0.1, "seconds": {}}
    if isinstance(recipe, Base):
        names = {name: sorted(_classes(setting, name)) or ["thing"] for name in percents}
        labels = {name: np.repeat(np.arange(IMAGES // 2), 2) % len(classes) for name, classes in names.items()}
        arrays |= packed({question: np.arange(IMAGES) % 2 == 0 for question in outcomes}, "select")
        arrays |= labelled({Question(name): rows for name, rows in labels.items()})
        about["classes"] = names
    store.put_scores(key, arrays, about)


def _classes(setting: Setting, dataset: str) -> set[str]:
    concepts = (concept for training in setting.trainings for concept in training.task.concepts)
    return {concept.classname for concept in concepts if concept.dataset == dataset}
