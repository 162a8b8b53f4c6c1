"""Settings: what all cells of one model, budget and seed share, with the steps that a budget allots."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from time_ray.clip import mini
from time_ray.core.budget import Budget, Cost
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Setting
from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Base, TaskTraining
from time_ray.core.stream import Task
from time_ray.model_needs import settled_scoring, settled_training
from time_ray.study.datasets import Datasets
from time_ray.study.faults import Faults, same

DEFAULT_LR = 1e-5  # the benchmark's rate; models that ship with time_ray name their own


def allot(experiment: Experiment, num_tasks: int) -> dict[tuple[ModelSpec, Budget], int]:
    """Optimiser steps of a task for every model and budget.

    Raises:
        StudyError: a budget is less than a step a task, or is another one written differently; a model is unknown.

    """
    batch_size, faults = experiment.training.batch_size, Faults()
    steps: dict[tuple[ModelSpec, Budget], int] = {}
    for place, spec in enumerate(experiment.model):
        cost = partial(_step_cost, spec.name, batch_size)
        for index, budget in enumerate(experiment.budget):
            with faults.at("model", place):
                try:
                    steps[spec, budget] = budget.steps(batch_size, num_tasks, cost)
                except ValueError as error:
                    faults.add([(("budget", index), f"{error} ({spec.label})")])
        faults.add(same("budget", [(b.label, str(steps.get((spec, b), b.label))) for b in experiment.budget]))
    faults.unless_none()
    return steps


def resolved_settings(
    experiment: Experiment,
    datasets: Datasets,
    bases: Sequence[Base],
    tasks: Mapping[int, Sequence[Task]],
    steps: Mapping[tuple[ModelSpec, Budget], int],
    normed: Collection[ModelSpec],
) -> list[Setting]:
    """Every setting, in reading order of the axes.

    Args:
        experiment: as written.
        datasets: that it names.
        bases: of its models, in their order.
        tasks: the stream of each seed.
        steps: of a task, for every model and budget.
        normed: the models with BatchNorm, where something depends on it.

    """
    scored = [(source.name, source.key) for source in (*datasets.adaptation, *datasets.evaluation)]
    return [
        Setting(
            model=spec,
            budget=budget.label,
            seed=seed,
            base=base,
            trainings=tuple(_trainings(experiment, datasets, spec, tasks[seed], steps[spec, budget], seed)),
            adaptation=tuple(source.name for source in datasets.adaptation),
            evaluation=tuple(source.name for source in datasets.evaluation),
            evaluation_data_key=key_of("evaluation data", scored),
            scoring=settled_scoring(experiment, spec),
            batches=experiment.batch_norm.num_batches if spec in normed else None,
        )
        for spec, base in zip(experiment.model, bases, strict=True)
        for budget in experiment.budget
        for seed in experiment.seed
    ]


def _trainings(
    experiment: Experiment, datasets: Datasets, spec: ModelSpec, tasks: Sequence[Task], steps: int, seed: int
) -> Iterator[TaskTraining]:
    """One for each task. An expert that is given has taken no steps here."""
    training, mixture = settled_training(experiment, spec), experiment.mixture
    if training.lr is None:
        training = training.model_copy(update={"lr": _own_rate(spec)})
    keys = {source.name: source.key for source in datasets.adaptation}
    pool = datasets.pretraining.key if datasets.pretraining else None
    for number, task in enumerate(tasks):
        earlier = tuple(tasks[:number]) if mixture.buffer > 0 else ()
        used = sorted({concept.dataset for t in (task, *earlier) for concept in t.concepts})
        data_key = key_of("data", [(name, keys[name]) for name in used], pool)
        given = datasets.experts[spec.name][task.concepts[0].dataset] if datasets.experts else None
        yield TaskTraining(task, earlier, training, mixture, 0 if given else steps, seed, data_key, given)


def _own_rate(spec: ModelSpec) -> float:
    shipped = mini.MODELS.get(spec.name)
    return shipped.finetune_lr if shipped else DEFAULT_LR


def _step_cost(name: str, batch_size: int) -> Cost:
    from time_ray.clip.cost import step_cost  # imports torch, which only budgets in FLOPs need

    return step_cost(name, batch_size)
