"""THE MAIN PATH: TIME's five stages, task after task, over a backend that does the work.

"How to Merge Your Multimodal Models Over Time?", https://arxiv.org/abs/2412.06712
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, Protocol, TypeAlias

from time_ray.core.grid import Cell, Setting
from time_ray.core.outcomes import Evaluation
from time_ray.core.recipe import Moments, Recipe, Trained
from time_ray.realize import WeightBackend, obtain, realize
from time_ray.weight_cache import Weights

Accuracy: TypeAlias = Mapping[str, float]  # percent, by dataset


class Backend(WeightBackend, Protocol):
    """What the loop acts on: where weights are made and kept, and their scores, too."""

    def evaluate(self, setting: Setting, models: Iterable[Weights]) -> Iterator[Evaluation]:
        """Each model measured on every dataset of the setting; as many in one pass over the images as fit."""

    def scores(self, setting: Setting, recipe: Recipe) -> Accuracy | None:
        """The scores of these weights from the store, or None."""

    def record(self, setting: Setting, recipe: Recipe, evaluation: Evaluation) -> None:
        """The scores are in the store, and the outcomes that they are made of."""


class DeployedModel(NamedTuple):
    """What a cell serves after a task, and how well; task 0 is the base, before any training."""

    cell: Cell
    task: int
    recipe: Recipe
    accuracy: Accuracy


def run(cells: Sequence[Cell], backend: Backend) -> Iterator[DeployedModel | None]:
    """Run cells of one trajectory, task after task. What is stored is not made again.

    Args:
        cells: Cells that share their experts, and so can go in step.
        backend: What trains, merges, evaluates and keeps.

    Yields:
        What each cell deploys after every task, and how well; None while another trial makes what these cells need,
        so that there is time for something else.

    Raises:
        CellError: These cells cannot go on: a loss is not finite, or an image is broken.
        StoreError: The storage cannot be read or written just now.

    """
    setting = cells[0].setting
    moments = {key: found for cell in cells for key, found in cell.moments().items()}
    deployed: list[Recipe] = [setting.base] * len(cells)
    yield from evaluated(cells, 0, deployed, backend)
    for steps in zip(*(cell.walk() for cell in cells), strict=True):  # init: a recipe, the same for all these cells
        yield from obtained(steps[0].expert, moments, backend)  # train and store, or find
        deployed = [step.deployed for step in steps]  # deploy: recipes, too
        if steps[0].training is setting.trainings[-1]:
            keep(deployed, backend)
        yield from evaluated(cells, steps[0].training.task.number, deployed, backend)  # eval
    finals = zip(cells, deployed, strict=True)
    moved = [recipe for cell, final in finals for recipe in cell.at_lengths(final).values()]
    yield from score(distinct(moved), setting, backend)  # the last models at other lengths, where they are asked for


def run_to_end(cell: Cell, backend: Backend) -> Iterator[None]:
    """What a cell serves last is scored, and nothing on the way; its experts are found, or trained.

    Yields:
        While another trial makes what this cell needs.

    Raises:
        CellError: It cannot go on, see `run`.
        StoreError: The storage cannot be read or written just now.

    """
    moments = cell.moments()
    deployed: Recipe = cell.setting.base
    for step in cell.walk():
        yield from obtained(step.expert, moments, backend)
        deployed = step.deployed
    yield from score(distinct([cell.setting.base, deployed]), cell.setting, backend)


def obtained(expert: Trained, moments: Mapping[str, Moments], backend: Backend) -> Iterator[None]:
    """The expert is in the store, and so are its second moments where these are among those that are needed."""
    yield from obtain(expert, backend)
    if expert.key in moments:
        yield from obtain(moments[expert.key], backend)


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
    found = yield from score(distinct(deployed), setting, backend)
    for cell, recipe in zip(cells, deployed, strict=True):
        yield DeployedModel(cell, task, recipe, found[recipe.key])


def distinct(models: Iterable[Recipe]) -> list[Recipe]:
    """Each model once."""
    return list({recipe.key: recipe for recipe in models}.values())


def score(models: Sequence[Recipe], setting: Setting, backend: Backend) -> Generator[None, None, dict[str, Accuracy]]:
    """The accuracy of each model, by key, found or measured; models are realised only to be measured."""
    found = _found(models, setting, backend)
    while missing := [recipe for recipe in models if recipe.key not in found]:
        with ExitStack() as leases:
            leased = [r for r in missing if leases.enter_context(backend.lease(setting.scores_key(r)))]
            ours = [recipe for recipe in leased if backend.scores(setting, recipe) is None]
            measured = backend.evaluate(setting, (realize(recipe, backend) for recipe in ours))
            for recipe, evaluation in zip(ours, measured, strict=True):
                backend.record(setting, recipe, evaluation)
        if not leased:
            yield
        found |= _found(missing, setting, backend)
    return found


def _found(models: Sequence[Recipe], setting: Setting, backend: Backend) -> dict[str, Accuracy]:
    looked_up = ((recipe.key, backend.scores(setting, recipe)) for recipe in models)
    return {key: accuracy for key, accuracy in looked_up if accuracy is not None}
