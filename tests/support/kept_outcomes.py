"""Results of toy grids with outcomes of images that are as hard for all models, in the halves of their names."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scored_store

from time_ray.core.grid import Cell
from time_ray.core.outcomes import Outcomes, Question, is_for_selection
from time_ray.store.files import Files
from time_ray.store.store import Store

IMAGES = 400
DATASETS = ("toys", "held out")  # those of toy_grid.setting
Chances = Callable[[Cell, int, float], Mapping[str, float]]
"""Of a cell after a task, at a length: by dataset, how many of the images are right, from 0 to 1."""


def keep(root: str, cells: Sequence[Cell], chances: Chances, *, images: int = IMAGES, outcomes: bool = True) -> Store:
    """Every cell is done: all its scores are in the store, with or without outcomes.

    A model that has more of the images right has all that another one has.
    """
    hardness = {name: np.random.default_rng(number).permutation(images) for number, name in enumerate(DATASETS)}
    select = {
        Question(name): np.array([is_for_selection(name, str(row)) for row in range(images)]) for name in DATASETS
    }

    def right(cell: Cell, task: int, length: float) -> Outcomes:
        share = chances(cell, task, length)
        return {Question(name): hardness[name] < round(share[name] * images) for name in DATASETS}

    store = Store(Files(root))
    scored_store.finish(store, cells, right, select, with_outcomes=outcomes)
    return store
