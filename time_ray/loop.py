"""THE MAIN PATH: TIME's five stages, task after task, over a backend that does the work.

"How to Merge Your Multimodal Models Over Time?", https://arxiv.org/abs/2412.06712
"""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol, TypeAlias

from torch import Tensor

from time_ray.core.grid import Cell, Setting
from time_ray.core.recipe import Base, Merged, Recipe, Running, Trained

Weights: TypeAlias = Mapping[str, Tensor]
Accuracy: TypeAlias = Mapping[str, float]  # percent, by dataset

PAUSE_SECONDS = 0.1  # before the store is asked again for what another trial is making


class Backend(Protocol):
    """What the loop needs: four things that compute, three that keep weights, two that keep scores, one lock."""

    def load(self, base: Base) -> Weights:
        """The pretrained weights."""

    def train(self, expert: Trained, start: Weights) -> Weights:
        """The expert: the start, trained on the recipe's task."""

    def merge(self, merge: Merged | Running) -> Weights:
        """The merged weights."""

    def evaluate(self, setting: Setting, models: Iterable[Weights]) -> Iterator[Accuracy]:
        """Accuracy of each model on every dataset of the setting; as many in one pass over the images as fit."""

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

    def lease(self, name: str) -> AbstractContextManager[bool]:
        """True: what has this name is ours to make. False: another trial is making it; look again later."""


class DeployedModel(NamedTuple):
    """What a cell serves after a task, and how well; task 0 is the base, before any training."""

    cell: Cell
    task: int
    recipe: Recipe
    accuracy: Accuracy


Waiting: TypeAlias = Generator[None, None, None]  # yields while another trial makes what is needed here


def run(cells: Sequence[Cell], backend: Backend) -> Iterator[DeployedModel | None]:
    """Run cells of one trajectory, and yield what each deploys after every task. What is stored is not made again.

    None in between: another trial is making what these cells need, so there is time for something else.
    """
    setting = cells[0].setting
    yield from evaluated(cells, 0, [setting.base] * len(cells), backend)
    for steps in zip(*(cell.walk() for cell in cells), strict=True):  # init: a recipe, the same for all these cells
        yield from obtain(steps[0].expert, backend)  # train and store, or find
        deployed = [step.deployed for step in steps]  # deploy: recipes, too
        if steps[0].training is setting.trainings[-1]:
            keep(deployed, backend)
        yield from evaluated(cells, steps[0].training.task.number, deployed, backend)  # eval


def obtain(expert: Trained, backend: Backend) -> Waiting:
    """The expert is in the store: found there, trained here, or trained meanwhile by another trial."""
    while not backend.has(expert):
        with backend.lease(expert.key) as ours:
            if ours and not backend.has(expert):
                backend.put(expert, backend.train(expert, realize(expert.start, backend)))
        if not ours:
            yield


def keep(models: Iterable[Recipe], backend: Backend) -> None:
    """The weights of these models are in the store."""
    for recipe in models:
        if not backend.has(recipe):
            backend.put(recipe, realize(recipe, backend))


def evaluated(
    cells: Sequence[Cell], task: int, deployed: Sequence[Recipe], backend: Backend
) -> Iterator[DeployedModel | None]:
    """What each cell serves after the task, and how well: found, or measured together."""
    setting = cells[0].setting
    found = yield from score(list({recipe.key: recipe for recipe in deployed}.values()), setting, backend)
    for cell, recipe in zip(cells, deployed, strict=True):
        yield DeployedModel(cell, task, recipe, found[recipe.key])


def score(models: Sequence[Recipe], setting: Setting, backend: Backend) -> Generator[None, None, dict[str, Accuracy]]:
    """The accuracy of each model, by key, found or measured; models are realised only to be measured."""
    found = _found(models, setting, backend)
    while missing := [recipe for recipe in models if recipe.key not in found]:
        with ExitStack() as leases:
            leased = [r for r in missing if leases.enter_context(backend.lease(setting.scores_key(r)))]
            ours = [recipe for recipe in leased if backend.scores(setting, recipe) is None]
            measured = backend.evaluate(setting, (realize(recipe, backend) for recipe in ours))
            for recipe, accuracy in zip(ours, measured, strict=True):
                backend.record(setting, recipe, accuracy)
        if not leased:
            yield
        found |= _found(missing, setting, backend)
    return found


def _found(models: Sequence[Recipe], setting: Setting, backend: Backend) -> dict[str, Accuracy]:
    looked_up = ((recipe.key, backend.scores(setting, recipe)) for recipe in models)
    return {key: accuracy for key, accuracy in looked_up if accuracy is not None}


def realize(recipe: Recipe, backend: Backend) -> Weights:
    """The tensors of a recipe, taken from the store where they are there and made where they are not."""
    if isinstance(recipe, Base):
        return backend.load(recipe)
    while (found := backend.get(recipe)) is None:
        if isinstance(recipe, Trained):
            _wait(obtain(recipe, backend))
            continue
        try:
            return backend.merge(recipe)
        except MissingExpertError as missing:
            _wait(obtain(missing.among(recipe), backend))
    return found


def _wait(waiting: Waiting) -> None:
    """See it through here: what was lost is needed at once."""
    for _ in waiting:
        time.sleep(PAUSE_SECONDS)


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
