"""Cells that are trained on all tasks at once, for comparison with those of the grid."""

from collections.abc import Sequence
from dataclasses import replace

from time_ray.core.grid import Cell, Setting
from time_ray.core.keys import key_of
from time_ray.core.recipe import ResolvedTechnique, TaskTraining
from time_ray.core.strategies import Ft, Zs
from time_ray.core.stream import Task


def multitask_bounds(settings: Sequence[Setting], technique: ResolvedTechnique) -> tuple[Cell, ...]:
    """For each setting one training on all its tasks at once, with the budget of all: what no merge of experts knows.

    It is a stream of one task, so there is nothing to merge, and no technique that counts.
    """
    once = [replace(setting, trainings=(_at_once(setting.trainings),)) for setting in settings]
    return tuple(Cell(Zs(), Ft(), technique, setting, multitask=True) for setting in once)


def _at_once(trainings: Sequence[TaskTraining]) -> TaskTraining:
    concepts = tuple(concept for training in trainings for concept in training.task.concepts)
    data_key = key_of("multitask data", [training.data_key for training in trainings])
    steps = sum(training.steps for training in trainings)
    return replace(trainings[0], task=Task(1, concepts), earlier=(), steps=steps, data_key=data_key)
