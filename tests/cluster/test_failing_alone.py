"""One of several workers fails: all hear of it in bounded time, with the reason, wherever it happens."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import rows
from torch import distributed

from time_ray import api
from time_ray.clip import evaluate, loss, models
from time_ray.cluster import ranks
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.checkpoints import StepCheckpoints
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.ranks import AloneError, ContactLostError
from time_ray.cluster.work import work
from time_ray.core.errors import CellError
from time_ray.data import batches as data_batches
from time_ray.data.dataset import write_dataset
from time_ray.data.sources import prepare
from time_ray.events import CellFailed
from time_ray.store.store import Store

AGREE_SECONDS = 0.5
BOUND_SECONDS = 120.0  # on a machine that has other things to do; without it they would wait for each other forever
STARTING_SECONDS = 180.0  # of two processes on a busy machine

KINDS: dict[str, tuple[Exception, str]] = {
    "what a cell cannot do": (CellError("shard 3: row 7: not a readable image"), "shard 3: row 7: not a readable"),
    "anything": (RuntimeError("of a kind that nobody knows"), "RuntimeError: of a kind that nobody knows"),
    "memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More is said."), "out of memory "),
}


class Failing:
    """Fails when it is called, from a call on that counts from 0."""

    def __init__(self, kind: str, function: Callable[..., Any], first: int = 0) -> None:
        self._error = KINDS[kind][0]
        self._function = function
        self._calls = count()
        self._first = first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if next(self._calls) >= self._first:
            raise self._error
        return self._function(*args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As the function, which gives batches; the second one fails."""
        yield from list(self._function(*args, **kwargs))[:1]
        raise self._error


def fail_in(owner: Any, name: str, kind: str, first: int = 0) -> None:
    failing = Failing(kind, getattr(owner, name), first)

    def call(*args: Any, **kwargs: Any) -> Any:  # on a class it is a method
        return failing(*args, **kwargs)

    setattr(owner, name, call)


PLACES: dict[str, Callable[[SweepBackend, str], None]] = {
    "the base": lambda _, kind: fail_in(models, "base_weights", kind),
    "a batch": lambda _, kind: setattr(data_batches, "batches", Failing(kind, data_batches.batches).stream),
    "a step": lambda _, kind: fail_in(loss.ContrastiveStep, "backward", kind, 1),
    "a checkpoint": lambda _, kind: fail_in(StepCheckpoints, "save", kind),
    "the store": lambda ours, kind: fail_in(ours, "put", kind),
    "a merge": lambda ours, kind: fail_in(ours, "merge", kind),
    "an image": lambda _, kind: fail_in(evaluate, "image_features", kind, 3),
    "retrieval": lambda _, kind: fail_in(evaluate, "recall_hits", kind, 1),
    "a score": lambda ours, kind: fail_in(ours, "record", kind),
    "writing": lambda _, kind: fail_in(Store, "put", kind),  # which rank 0 does, and all hear of
    "its process": lambda ours, _: setattr(ours, "put", lambda *_: os._exit(1)),
}


def worker(rank: int, path: Path, folder: Path, place: str, kind: str, failing: list[int]) -> None:
    """Run the experiment's cells on one of two workers, and note how that ended."""
    torch.set_num_threads(1)
    ranks.AGREE_SECONDS = AGREE_SECONDS
    StepCheckpoints.due = lambda *_: True  # type: ignore[method-assign]
    distributed.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=2)
    opened = api.open_experiment(path)
    coordinator = LocalCoordinator()
    ours = SweepBackend(opened.study, opened.store, coordinator)
    if rank in failing:
        PLACES[place](ours, kind)
    began, end = time.monotonic(), "done"
    try:
        work(opened.study.cells, ours)
    except (AloneError, ContactLostError) as error:
        end = type(error).__name__
    took = time.monotonic() - began
    failed = {event.cell: event.error for event in coordinator.events() if isinstance(event, CellFailed)}
    (folder / f"{rank}.new").write_text(json.dumps([end, failed, took]))
    (folder / f"{rank}.new").rename(folder / f"{rank}.json")
    os._exit(0)  # as Ray Train ends a worker, whatever its collectives wait for


def ends(path: Path, folder: Path, place: str, kind: str, failing: list[int], expected: int = 2) -> dict[int, Any]:
    """How each worker ended, once so many have; those that wait for others are ended, as Ray Train does."""
    folder.mkdir()
    began = time.monotonic()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["time_ray.api", "time_ray.cluster.backend", "time_ray.cluster.work"])
    processes = [context.Process(target=worker, args=(rank, path, folder, place, kind, failing)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        while len(list(folder.glob("*.json"))) < expected and time.monotonic() - began < STARTING_SECONDS:
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
            process.join()
    found = {int(file.stem): json.loads(file.read_text()) for file in folder.glob("*.json")}
    assert all(took < BOUND_SECONDS for *_, took in found.values())
    return {rank: (end, failed) for rank, (end, failed, _) in found.items()}


@pytest.fixture
def experiment(new_experiment: Callable[..., Path], tmp_path: Path) -> Path:
    write_dataset(
        tmp_path / "pairs",
        name="pairs",
        splits={"train": [], "test": rows(12)},
        classes=("cat", "dog", "owl"),
        templates=("a {}.",),
        kind="retrieval",
    )
    data = {"adaptation": "mini:chess", "evaluation": str(tmp_path / "pairs")}
    changes = {"init": "ema", "deploy": ["ema", "all"], "technique": "average", "budget": "3 steps", "data": data}
    path = new_experiment(tmp_path, **changes, stream={"tasks": 2})
    prepare(api.open_experiment(path).study.datasets.all, print)
    return path


USUAL = {("a batch", "what a cell cannot do", 1), ("a step", "anything", 0), ("retrieval", "memory", 1)}


@pytest.mark.parametrize(
    ("place", "kind", "rank"),
    [
        pytest.param(place, kind, rank, marks=() if (place, kind, rank) in USUAL else pytest.mark.nightly)
        for place in PLACES
        for kind in KINDS
        for rank in range(2)
        if place not in ("writing", "its process")
    ],
)
def test_a_worker_that_fails_alone_says_why_and_ends(
    experiment: Path, tmp_path: Path, place: str, kind: str, rank: int
) -> None:
    found = ends(experiment, tmp_path / "ends", place, kind, [rank])
    cells = {cell.key for cell in api.open_experiment(experiment).study.cells}
    end, failed = found[rank]
    other_end, other_failed = found[1 - rank]
    assert failed.keys() == cells
    assert {error[: len(KINDS[kind][1])] for error in failed.values()} == {KINDS[kind][1]}
    if (place, rank) == ("the base", 0):  # all that rank 0 is asked for goes to the others
        assert (end, other_end) in {("AloneError", "ContactLostError"), ("done", "done")}
    else:
        assert (end, other_end, other_failed) == ("AloneError", "ContactLostError", {})  # it was not to blame


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_what_rank_0_does_for_all_fails_on_all_and_they_go_on(experiment: Path, tmp_path: Path, kind: str) -> None:
    found = ends(experiment, tmp_path / "ends", "writing", kind, [0])
    assert {end for end, _ in found.values()} == {"done"}
    (said,) = {error[: len(KINDS[kind][1])] for error in found[0][1].values()}
    assert said == KINDS[kind][1]
    assert found[1][1] == {}  # told once


@pytest.mark.nightly
def test_who_loses_another_worker_blames_no_cell(experiment: Path, tmp_path: Path) -> None:
    found = ends(experiment, tmp_path / "ends", "its process", "anything", [1], expected=1)
    assert found == {0: ("ContactLostError", {})}


@pytest.mark.nightly
def test_workers_that_fail_alike_go_on_together(experiment: Path, tmp_path: Path) -> None:
    found = ends(experiment, tmp_path / "ends", "an image", "what a cell cannot do", [0, 1])
    cells = {cell.key for cell in api.open_experiment(experiment).study.cells}
    assert found[0] == ("done", dict.fromkeys(cells, "shard 3: row 7: not a readable image"))
    assert found[1] == ("done", {})  # told once


def test_a_trial_that_is_started_again_leaves_out_what_has_failed(experiment: Path) -> None:
    opened = api.open_experiment(experiment)
    first, second = opened.study.cells
    coordinator = LocalCoordinator()
    coordinator.emit(CellFailed(first.key, "out of memory"))
    work(opened.study.cells, SweepBackend(opened.study, opened.store, coordinator))
    assert [result.done for result in api.status(opened)] == [False, True]
    assert second.key not in coordinator.failed([second.key])
