"""The stream: (dataset, class) pairs in order, cut into tasks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from time_ray.core.keys import Named, named

Arrangement = Literal["listed", "random", "dataset_incremental", "random_datasets"]
BY_DATASET = ("dataset_incremental", "random_datasets")  # these have one task a dataset
Order = Literal["random", "datasets", "similarity", "performance", "frequency"]  # what a stream can be built by


class Concept(NamedTuple):
    """One class of one dataset: the unit that a stream orders."""

    dataset: str
    classname: str


@dataclass(frozen=True, slots=True)
class Task:
    """A step of the stream: all training samples of its concepts. `number` counts from 1."""

    number: int
    concepts: tuple[Concept, ...]
    named: Named = field(init=False, repr=False, compare=False)  # the concepts, as they go into keys

    def __post_init__(self) -> None:
        object.__setattr__(self, "named", named(self.concepts))


def cut(
    concepts: Sequence[Concept], arrangement: Arrangement, num_tasks: int, *, seed: int, reverse: bool = False
) -> tuple[Task, ...]:
    """The concepts put in order and cut into tasks; `num_tasks` does not count with one task a dataset."""
    order = _mixed(concepts, arrangement, seed)
    order = order[::-1] if reverse else order
    return one_task_per_dataset(order) if arrangement in BY_DATASET else chunk(order, num_tasks)


def _mixed(concepts: Sequence[Concept], arrangement: Arrangement, seed: int) -> tuple[Concept, ...]:
    if arrangement == "random":
        return random_order(concepts, seed)
    return random_datasets(concepts, seed) if arrangement == "random_datasets" else tuple(concepts)


def random_order(concepts: Sequence[Concept], seed: int) -> tuple[Concept, ...]:
    """All concepts in an order that depends on the seed alone."""
    ordered = sorted(concepts)
    random.Random(f"stream {seed}").shuffle(ordered)
    return tuple(ordered)


def random_datasets(concepts: Sequence[Concept], seed: int) -> tuple[Concept, ...]:
    """One dataset after the other, in an order that depends on the seed alone; the classes of each as they are."""
    names = sorted({concept.dataset for concept in concepts})
    random.Random(f"datasets {seed}").shuffle(names)
    place = {name: number for number, name in enumerate(names)}
    return tuple(sorted(concepts, key=lambda concept: place[concept.dataset]))


def chunk(concepts: Sequence[Concept], num_tasks: int) -> tuple[Task, ...]:
    """Cut an order into tasks as FoMo-in-Flux does: with q, r = divmod(n, T), the first r tasks get q + 1 concepts.

    18,381 concepts at T = 20 give one task of 920 and nineteen of 919.
    """
    q, r = divmod(len(concepts), num_tasks)
    tasks, start = [], 0
    for number in range(1, num_tasks + 1):
        size = q + (number <= r)
        tasks.append(Task(number, tuple(concepts[start : start + size])))
        start += size
    return tuple(tasks)


def one_task_per_dataset(concepts: Sequence[Concept]) -> tuple[Task, ...]:
    """Dataset-incremental stream: one task for each dataset, in the order of first appearance."""
    groups: dict[str, list[Concept]] = {}
    for concept in concepts:
        groups.setdefault(concept.dataset, []).append(concept)
    return tuple(Task(number, tuple(group)) for number, group in enumerate(groups.values(), start=1))
