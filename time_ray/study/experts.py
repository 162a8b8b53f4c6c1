"""Given experts in an experiment: where they lie, and what makes no sense beside them."""

from collections.abc import Iterable, Iterator

from time_ray import merging
from time_ray.clip.expert_files import GivenExperts, find_experts
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Setting
from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Trained
from time_ray.core.strategies import Zs
from time_ray.core.stream import Concept
from time_ray.store.files import Files
from time_ray.study.datasets import Datasets
from time_ray.study.faults import Fault, same
from time_ray.study.streams import arriving, streams


def given_experts(experiment: Experiment, datasets: Datasets, files: Files) -> GivenExperts | None:
    """The experts of an experiment, if it gives them. Raises UserError with every fault of their files."""
    if experiment.experts is None:
        return None
    taught = dict.fromkeys(concept.dataset for concept in arriving(experiment, datasets)[0])
    return find_experts(experiment.experts, [spec.name for spec in experiment.model], list(taught), files)


def given_in(settings: Iterable[Setting]) -> Iterator[tuple[ModelSpec, Trained]]:
    """The given experts of these settings, each with its model; seeds share them."""
    for setting in settings:
        for training in setting.trainings:
            if training.given is not None:
                yield setting.model, Trained(setting.base, training)


def not_with_experts(experiment: Experiment) -> Iterator[Fault]:
    """What makes no sense where experts are given, and nothing is trained."""
    if experiment.experts is None:
        return
    for index, strategy in enumerate(experiment.init):
        if not isinstance(strategy, Zs):
            text = "given experts start from the base, whatever came before; leave zs alone, or remove experts"
            yield ("init", index), f"'{strategy.label}': {text}"
    for index, technique in enumerate(experiment.technique):
        if technique.name in merging.TECHNIQUES and merging.TECHNIQUES[technique.name].needs_moments:
            text = "it needs second moments of trainings, but experts are given; take it out, or remove experts"
            yield ("technique", index), f"'{technique.label}': {text}"
    if not experiment.stream.by_dataset:
        text = "an expert is given for each dataset; write random_datasets or dataset_incremental"
        yield ("stream", "order"), f"{experiment.stream.arrangement}: {text}"
    if len(experiment.budget) > 1:
        yield ("budget", 1), "experts are given, so that no budget is spent; keep one"
    if experiment.multitask:
        yield ("multitask",), "trains, but experts are given; remove one of the two"
    if experiment.batch_norm.num_batches is not None:
        text = "reestimate wants a training, but experts are given; write average"
        yield ("batch_norm", "statistics"), text


def same_experts(experiment: Experiment, concepts: tuple[Concept, ...]) -> Iterator[Fault]:
    """Seeds that differ in nothing: given experts depend on none, and may come in the same order."""
    if experiment.experts is not None and experiment.evaluation.subset is None:
        orders = {seed: [t.named for t in tasks] for seed, tasks in streams(experiment, concepts).items()}
        yield from same("seed", [(f"seed {seed}", key_of("order", order)) for seed, order in orders.items()])
