"""Scores with outcomes in a store, for cells of toy grids: as a sweep keeps them, with accuracies that tests choose."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from time_ray.core.grid import Cell, Setting
from time_ray.core.outcomes import Question, accuracies, is_for_selection, labelled, packed
from time_ray.core.recipe import Recipe
from time_ray.store.files import Files
from time_ray.store.store import Store

IMAGES = 400
DATASETS = ("toys", "held out")  # those of toy_grid.setting
Chances = Callable[[Cell, int, float], Mapping[str, float]]
"""Of a cell after a task, at a length: by dataset, how many of the images are right, from 0 to 1."""


def keep(root: str, cells: Sequence[Cell], chances: Chances, *, images: int = IMAGES, outcomes: bool = True) -> Store:
    """Every cell is done: all its scores are in the store, with or without outcomes."""
    store = Store(Files(root))
    for cell in cells:
        setting, final = cell.setting, cell.setting.base
        _keep(store, setting, final, chances(cell, 0, 1.0), images, outcomes=outcomes)
        for step in cell.walk():
            store.record("weights", step.expert.key, {"seconds": {"train": 1.0}})
            final = step.deployed
            _keep(store, setting, final, chances(cell, step.training.task.number, 1.0), images, outcomes=outcomes)
        store.record("weights", final.key, {"seconds": {}})
        last = len(setting.trainings)
        for length, recipe in cell.at_lengths(final).items():
            _keep(store, setting, recipe, chances(cell, last, length), images, outcomes=outcomes)
    return store


def _keep(
    store: Store, setting: Setting, recipe: Recipe, chances: Mapping[str, float], images: int, *, outcomes: bool
) -> None:
    """Images are as hard for all models: one that has more of them right has all that another one has."""
    hardness = {name: np.random.default_rng(number).permutation(images) for number, name in enumerate(DATASETS)}
    right = {Question(name): hardness[name] < round(chances[name] * images) for name in DATASETS}
    about: dict[str, object] = {"accuracy": accuracies(right), "distance": 0.5, "recipe": {}, "seconds": {}}
    if not outcomes:
        store.record("scores", setting.scores_key(recipe), about)
        return
    arrays = dict(packed(right))
    if recipe is setting.base:
        select = {
            Question(name): np.array([is_for_selection(name, str(row)) for row in range(images)]) for name in DATASETS
        }
        classes = {name: [f"class {number}" for number in range(1, len(setting.trainings) + 1)] for name in DATASETS}
        labels = {Question(name): np.arange(images) % len(classes[name]) for name in DATASETS}
        arrays |= {**packed(select, "select"), **labelled(labels)}
        about["classes"] = classes
    store.put_scores(setting.scores_key(recipe), arrays, about)
