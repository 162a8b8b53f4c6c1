"""Streams: what arrives, cut into the tasks of each seed."""

from collections.abc import Iterator

from time_ray.core.experiment import Experiment
from time_ray.core.stream import Concept, Task, cut
from time_ray.data.stream_file import in_terms_of
from time_ray.study.datasets import Datasets
from time_ray.study.faults import Fault


def arriving(experiment: Experiment, datasets: Datasets) -> tuple[tuple[Concept, ...], list[str]]:
    """What arrives: the classes of the stream's file, else all of the data; and what is wrong with the former."""
    if datasets.listed is None:
        return tuple(Concept(dataset.name, name) for dataset in datasets.adaptation for name in dataset.classes), []
    known = {dataset.name: dataset.classes for dataset in datasets.adaptation}
    return in_terms_of(known, datasets.listed, str(experiment.stream.file))


def uncut(experiment: Experiment, num_concepts: int) -> Iterator[Fault]:
    """Why the stream cannot be cut into the tasks that are asked for."""
    stream = experiment.stream
    if stream.by_dataset:
        return
    if stream.tasks is None:
        yield ("stream", "tasks"), f"a {stream.arrangement} stream needs a number of tasks"
    elif num_concepts and stream.tasks > num_concepts:
        what = "adaptation data" if stream.file is None else "stream's file"
        text = f"{stream.tasks} tasks, but the {what} has only {num_concepts} classes; ask for fewer"
        yield ("stream", "tasks"), text


def streams(experiment: Experiment, concepts: tuple[Concept, ...]) -> dict[int, tuple[Task, ...]]:
    """The stream of each seed."""
    stream = experiment.stream
    return {
        seed: cut(concepts, stream.arrangement, stream.tasks or 1, seed=seed, reverse=stream.reverse)
        for seed in experiment.seed
    }
