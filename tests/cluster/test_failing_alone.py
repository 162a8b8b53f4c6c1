"""One of several workers fails: all hear of it in bounded time, with the reason, wherever it happens."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.multiprocessing import start_processes

from time_ray import api
from time_ray.cluster import backend, ranks
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.ranks import AloneError, ContactLostError
from time_ray.cluster.work import work
from time_ray.core.errors import CellError
from time_ray.data import batches as data_batches
from time_ray.data.sources import prepare
from time_ray.events import CellFailed

AGREE_SECONDS = 3.0
BOUND_SECONDS = 30.0
STARTING_SECONDS = 60.0  # of two processes on a busy machine


def broken(*_: object, **__: object) -> Any:
    msg = "shard 3: row 7: not a readable image"
    raise CellError(msg)


def out_of_memory(*_: object, **__: object) -> Any:
    msg = "CUDA out of memory. Tried to allocate 2 GiB. Much more is said."
    raise torch.OutOfMemoryError(msg)


def in_the_second_step(stream: Callable[..., Any]) -> Callable[..., Any]:
    def batches(*args: object, **kwargs: object) -> Any:
        yield from list(stream(*args, **kwargs))[:1]
        broken()

    return batches


PLACES: dict[str, Callable[[SweepBackend], None]] = {
    "a batch": lambda _: setattr(data_batches, "batches", in_the_second_step(data_batches.batches)),
    "a step": lambda _: setattr(backend, "train", out_of_memory),
    "an evaluation": lambda _: setattr(backend, "evaluate", broken),
    "a merge": lambda ours: setattr(ours, "merge", out_of_memory),
    "the store": lambda ours: setattr(ours, "put", broken),
}
LOST = "its process"


def worker(rank: int, path: Path, folder: Path, place: str, failing: list[int]) -> None:
    """Run the experiment's cells on one of two workers, and note how that ended."""
    torch.set_num_threads(1)
    ranks.AGREE_SECONDS = AGREE_SECONDS
    distributed.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=2)
    opened = api.open_experiment(path)
    coordinator = LocalCoordinator()
    ours = SweepBackend(opened.study, opened.store, coordinator)
    if rank in failing:
        (PLACES | {LOST: lambda ours: setattr(ours, "put", lambda *_: os._exit(1))})[place](ours)
    end = "done"
    try:
        work(opened.study.cells, ours)
    except (AloneError, ContactLostError) as error:
        end = type(error).__name__
    failed = {event.cell: event.error for event in coordinator.events() if isinstance(event, CellFailed)}
    (folder / f"{rank}.new").write_text(json.dumps([end, failed]))
    (folder / f"{rank}.new").rename(folder / f"{rank}.json")


def ends(path: Path, folder: Path, place: str, failing: list[int], until: Callable[[], bool]) -> dict[int, Any]:
    """How each worker ended; those that wait for others are ended, as Ray Train does."""
    folder.mkdir()
    began = time.monotonic()
    processes = start_processes(worker, (path, folder, place, failing), nprocs=2, join=False, start_method="spawn")
    try:
        while not until() and time.monotonic() - began < BOUND_SECONDS + STARTING_SECONDS:
            time.sleep(0.1)
    finally:
        for process in processes.processes:
            process.kill()
            process.join()
    return {int(file.stem): json.loads(file.read_text()) for file in folder.glob("*.json")}


@pytest.fixture
def experiment(new_experiment: Callable[..., Path], tmp_path: Path) -> Path:
    path = new_experiment(tmp_path, init="ema", deploy=["ema", "all"], technique="average", budget="2 steps")
    opened = api.open_experiment(path)
    prepare(opened.study.datasets.all, print)
    return path


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=() if place == "a batch" else pytest.mark.nightly) for place in PLACES]
)
def test_a_worker_that_fails_alone_says_why_and_ends(experiment: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "ends"
    found = ends(experiment, folder, place, [1], lambda: len(list(folder.glob("*.json"))) == 2)
    end, failed = found[1]
    assert end == "AloneError"
    assert found[0] == ["ContactLostError", {}]  # it was not to blame
    reason = {
        "a step": "out of memory (CUDA out of memory); raise run.accumulate",
        "a merge": "out of memory (CUDA out of memory); raise run.accumulate",
    }.get(place, "shard 3: row 7: not a readable image")
    assert failed.keys() == {cell.key for cell in api.open_experiment(experiment).study.cells}
    assert all(error.startswith(reason) for error in failed.values())


@pytest.mark.nightly
def test_who_loses_another_worker_blames_no_cell(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ends"
    assert ends(experiment, folder, LOST, [1], (folder / "0.json").exists) == {0: ["ContactLostError", {}]}


@pytest.mark.nightly
def test_workers_that_fail_alike_go_on_together(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ends"
    found = ends(experiment, folder, "an evaluation", [0, 1], lambda: len(list(folder.glob("*.json"))) == 2)
    cells = {cell.key for cell in api.open_experiment(experiment).study.cells}
    assert found[0] == ["done", dict.fromkeys(cells, "shard 3: row 7: not a readable image")]
    assert found[1] == ["done", {}]  # told once


def test_a_trial_that_is_started_again_leaves_out_what_has_failed(experiment: Path) -> None:
    opened = api.open_experiment(experiment)
    first, second = opened.study.cells
    coordinator = LocalCoordinator()
    coordinator.emit(CellFailed(first.key, "out of memory"))
    work(opened.study.cells, SweepBackend(opened.study, opened.store, coordinator))
    assert [result.done for result in api.status(opened)] == [False, True]
    assert second.key not in coordinator.failed([second.key])
