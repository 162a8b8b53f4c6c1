"""Streams are cut into tasks as the benchmark cuts them."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.stream import Concept, chunk, cut, one_task_per_dataset, random_datasets, random_order

CONCEPTS = [Concept("a", str(i)) for i in range(18_381)]


@pytest.mark.parametrize(
    ("num_tasks", "sizes"),
    [(20, {920: 1, 919: 19}), (50, {368: 31, 367: 19}), (100, {184: 81, 183: 19}), (200, {92: 181, 91: 19})],
)
def test_the_benchmark_stream(num_tasks: int, sizes: dict[int, int]) -> None:
    tasks = chunk(CONCEPTS, num_tasks)
    assert Counter(len(task.concepts) for task in tasks) == sizes
    assert len(tasks[0].concepts) == max(sizes)


@given(st.integers(1, 200), st.data())
def test_chunks_are_the_order_cut_up(count: int, data: st.DataObject) -> None:
    num_tasks = data.draw(st.integers(1, count))
    tasks = chunk(CONCEPTS[:count], num_tasks)
    assert [c for task in tasks for c in task.concepts] == CONCEPTS[:count]
    assert [task.number for task in tasks] == list(range(1, num_tasks + 1))
    assert min(len(task.concepts) for task in tasks) >= 1


def test_a_random_order_depends_on_the_seed_alone() -> None:
    concepts = CONCEPTS[:50]
    order = random_order(concepts, 7)
    assert order == random_order(concepts[::-1], 7)
    assert order != random_order(concepts, 8)
    assert sorted(order) == sorted(concepts)


def test_a_random_order_is_the_same_in_every_process() -> None:
    program = (
        "from time_ray.core.stream import Concept, random_order;"
        "print([c.classname for c in random_order([Concept('a', str(i)) for i in range(9)], 3)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    here = random_order([Concept("a", str(i)) for i in range(9)], 3)
    assert done.stdout.strip() == str([concept.classname for concept in here])


def test_one_task_a_dataset() -> None:
    concepts = [Concept("b", "1"), Concept("a", "1"), Concept("b", "2")]
    assert [t.concepts for t in one_task_per_dataset(concepts)] == [(concepts[0], concepts[2]), (concepts[1],)]


def test_whole_datasets_are_mixed_by_the_seed() -> None:
    concepts = [Concept(name, classname) for name in "abcdefgh" for classname in ("2", "1")]
    streams = [cut(concepts, "random_datasets", 1, seed=seed) for seed in range(10)]
    orders = {tuple(task.concepts[0].dataset for task in tasks) for tasks in streams}
    assert len(orders) == 10
    assert all(sorted(order) == list("abcdefgh") for order in orders)
    mixed = random_datasets(concepts, 3)
    assert mixed == random_datasets([*concepts[8:], *concepts[:8]], 3)
    assert [concept.classname for concept in mixed] == ["2", "1"] * 8
    assert all(len(task.concepts) == 2 for task in streams[3])


def test_cutting_arranges_first() -> None:
    concepts = [Concept("b", "1"), Concept("a", "1"), Concept("b", "2"), Concept("a", "2")]
    listed = [task.concepts for task in cut(concepts, "listed", 2, seed=3)]
    assert listed == [tuple(concepts[:2]), tuple(concepts[2:])]
    back = [task.concepts for task in cut(concepts, "listed", 2, seed=3, reverse=True)]
    assert back == [(concepts[3], concepts[2]), (concepts[1], concepts[0])]
    assert cut(concepts, "random", 2, seed=3) == chunk(random_order(concepts, 3), 2)
    assert cut(concepts, "random", 2, seed=3) != cut(concepts, "random", 2, seed=4)
    assert cut(concepts, "dataset_incremental", 9, seed=3) == one_task_per_dataset(concepts)
    assert [task.concepts[0].dataset for task in cut(concepts, "dataset_incremental", 9, seed=3, reverse=True)] == [
        "a",
        "b",
    ]
