"""THE MAIN PATH: TIME's five stages, task after task, and the world they act on.

"How to Merge Your Multimodal Models Over Time?", https://arxiv.org/abs/2412.06712
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor

from time_ray.core.grid import Cell, Setting
from time_ray.core.recipe import Base, Merged, Recipe, Running, Trained

Weights: TypeAlias = Mapping[str, Tensor]
Accuracy: TypeAlias = Mapping[str, float]  # percent, by dataset


class World(Protocol):
    """What the loop needs: four things that compute, three that keep weights, two that keep scores, one lock."""

    def load(self, base: Base) -> Weights:
        """The pretrained weights."""

    def train(self, expert: Trained, start: Weights) -> Weights:
        """The expert: the start, trained on the recipe's task."""

    def merge(self, merge: Merged | Running) -> Weights:
        """The merged weights."""

    def evaluate(self, setting: Setting, weights: Weights) -> Accuracy:
        """Accuracy on every dataset of the setting."""

    def has(self, recipe: Recipe) -> bool:
        """Whether the weights are in the store."""

    def get(self, recipe: Recipe) -> Weights | None:
        """The weights from the store, or None."""

    def put(self, recipe: Recipe, weights: Weights) -> None:
        """The weights are in the store."""

    def scores(self, setting: Setting, recipe: Recipe) -> Accuracy | None:
        """The scores of these weights from the store, or None."""

    def record(self, setting: Setting, recipe: Recipe, accuracy: Accuracy) -> None:
        """The scores are in the store."""

    def claim(self, name: str) -> AbstractContextManager[bool]:
        """True: what has this name is ours to make. False, after a while: another trial is making it; look again."""


class Row(NamedTuple):
    """What a cell serves after a task; task 0 is the base, before any training."""

    cell: Cell
    task: int
    deployed: Recipe
    accuracy: Accuracy


def run(cell: Cell, world: World) -> Iterator[Row]:
    """Run the cell's tasks in order; one row after each. Whatever is in the store is not made again."""
    base = cell.setting.base
    yield Row(cell, 0, base, score(base, cell.setting, world))
    for step in cell.walk():  # init: step.start is a recipe
        obtain(step.expert, world)  # train and store, or find
        deployed = step.deployed  # deploy: a recipe, too
        if step.training is cell.setting.trainings[-1] and not world.has(deployed):
            world.put(deployed, realize(deployed, world))
        yield Row(cell, step.training.task.number, deployed, score(deployed, cell.setting, world))  # eval


def obtain(expert: Trained, world: World) -> None:
    """The expert is in the store: found there, trained here, or trained meanwhile by another trial."""
    while not world.has(expert):
        with world.claim(expert.key) as ours:
            if ours and not world.has(expert):
                world.put(expert, world.train(expert, realize(expert.start, world)))


def score(weights: Recipe, setting: Setting, world: World) -> Accuracy:
    """The accuracy of these weights, found or measured; they are realised only to be measured."""
    while (found := world.scores(setting, weights)) is None:
        with world.claim(setting.scores_key(weights)) as ours:
            if ours and world.scores(setting, weights) is None:
                world.record(setting, weights, world.evaluate(setting, realize(weights, world)))
    return found


def realize(recipe: Recipe, world: World) -> Weights:
    """The tensors of a recipe, taken from the store where they are there and made where they are not."""
    if isinstance(recipe, Base):
        return world.load(recipe)
    while (found := world.get(recipe)) is None:
        if isinstance(recipe, Trained):
            obtain(recipe, world)
            continue
        try:
            return world.merge(recipe)
        except MissingExpertError as missing:
            obtain(missing.among(recipe), world)
    return found


class MissingExpertError(Exception):
    """A merge needs an expert that is not in the store, or no longer whole there."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def among(self, recipe: Recipe) -> Trained:
        """The expert that is missing from this merge."""
        return next(expert for expert in _experts(recipe) if expert.key == self.key)


def _experts(recipe: Recipe) -> Iterator[Trained]:
    while isinstance(recipe, Running):
        yield recipe.newer
        recipe = recipe.older
    if isinstance(recipe, Merged):
        yield from recipe.experts
    elif isinstance(recipe, Trained):
        yield recipe
