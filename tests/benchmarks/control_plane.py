"""Trials of no work on the real control plane: `python tests/benchmarks/control_plane.py [--trials 2000]`.

Every trial finds all that it needs in the storage, so that what is left is what a sweep itself does: queue, Ray Tune,
processes that are used again, coordinator, events, display and MLflow. Printed are trials a second, the memory of the
driver and of the process that speaks with Ray after each tenth of the trials (what they have for themselves), what a
trial asks of the coordinator and of the storage, and the points a second that MLflow takes, beside trials and after.
RAY_ADDRESS names a cluster with more CPUs than this machine has.
"""

import argparse
import os
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from rich.console import Console

from time_ray import api
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.ray_process import ray_process
from time_ray.cluster.sweep import _Sweep
from time_ray.cluster.work import work
from time_ray.core.plan import needs
from time_ray.events import CellDone, Event
from time_ray.model_needs import needs_by_model
from time_ray.opened import Opened
from time_ray.report.progress import SweepProgress
from time_ray.store.files import Files
from time_ray.store.lease import lease
from time_ray.store.store import Store
from time_ray.tracking.history import owners
from time_ray.tracking.mlflow_sync import MlflowSync

EXPERIMENT: dict[str, Any] = {
    "name": "no-work",
    "init": "ft",
    "deploy": "ft",
    "technique": "average",
    "model": "mini-tiny",
    "budget": "2 steps",
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 2},
    "training": {"batch_size": 8, "augment": "none"},
}
MARKS = 10


def fill(opened: Opened) -> None:
    """The storage holds what every cell needs: scores that nobody measured, and weights of one number each."""
    store, accuracy = opened.store, {"chess": 50.0, "textures": 50.0}
    for number, cell in enumerate(opened.study.cells):
        need = needs(cell)
        for key in need.scores:
            store.record("scores", key, {"recipe": {}, "accuracy": accuracy, "seconds": {"deploy": 0.0, "eval": 0.0}})
        for key in need.experts:
            about = {"recipe": {}, "seconds": {"init": 0.0, "train": 0.0}, "made_by": {}}
            store.put(key, {"weight": torch.tensor([float(number)])}, about)


class Clock:
    """When cells were done, and what memory processes had then."""

    def __init__(self, cells: int, shown: Callable[[Event], None]) -> None:
        self._cells = cells
        self._shown = shown
        self.done = 0
        self.marks: list[tuple[float, int, float, float]] = []  # when, cells, MB of the driver, MB of Ray's

    def watch(self, event: Event) -> None:
        self._shown(event)
        if isinstance(event, CellDone):
            self.done += 1
            if self.done == 1 or self.done % (self._cells // MARKS) == 0:
                self.marks.append((time.monotonic(), self.done, *memory()))


def memory() -> tuple[float, float]:
    """MB of this process, and of the one that speaks with Ray."""
    me = psutil.Process()
    ray = [child for child in me.children() if "time_ray.cluster.ray_driver" in " ".join(child.cmdline())]
    return _megabytes(me), sum(map(_megabytes, ray))


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / 1e6


def num_points(opened: Opened) -> int:
    """How many points of metrics MLflow has."""
    with closing(sqlite3.connect(opened.files.path("mlflow.db"))) as database:
        (count,) = database.execute("SELECT count(*) FROM metrics").fetchone()
    return int(count)


class CountingCoordinator(LocalCoordinator):
    """Counts what it is asked."""

    def __init__(self, calls: Counter[str]) -> None:
        super().__init__()
        self._calls = calls

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._calls[name] += 1
        return super().__getattribute__(name)


class CountingFiles(Files):
    """Counts listings and readings."""

    def __init__(self, uri: str, calls: Counter[str]) -> None:
        super().__init__(uri)
        self._calls = calls

    def list(self, *parts: str, recursive: bool = False) -> Any:
        self._calls["listings"] += 1
        return super().list(*parts, recursive=recursive)

    def find(self, *parts: str) -> bytes | None:
        self._calls["readings"] += 1
        return super().find(*parts)


def asked_by_a_trial(opened: Opened) -> tuple[Counter[str], Counter[str]]:
    """Calls of the coordinator and of the storage in one trial."""
    calls, files = Counter[str](), Counter[str]()
    store = Store(CountingFiles(opened.files.uri, files))
    backend = SweepBackend(opened.study, store, CountingCoordinator(calls))
    calls.clear()
    work([opened.study.cells[0]], backend)
    return calls + Counter(failed=1), files  # a worker asks once more, before it opens anything


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIME_RAY_STORAGE"] = str(Path(folder, "runs"))
        path = Path(folder, "no_work.yaml")
        path.write_text(yaml.safe_dump({**EXPERIMENT, "seed": list(range(given.trials))}), encoding="utf-8")
        began = time.monotonic()
        opened = api.open_experiment(path)
        print(f"opened {given.trials} cells in {time.monotonic() - began:.1f} s", flush=True)
        fill(opened)
        run(opened)


def run(opened: Opened) -> None:
    with lease(opened.files, opened.study.experiment.name) as held:
        display = SweepProgress(opened.study.cells, opened.store, Console(stderr=True, quiet=True))
        clock = Clock(len(opened.study.cells), display.take)
        sweep = _Sweep(opened.study, opened.files, clock.watch, held)
        sweep._draw()
        owners(opened.study, opened.store)
        sweep.mlflow = MlflowSync(opened.study, opened.files)
        with ray_process(needs_by_model(opened.study.experiment).values()) as (ray, folder):
            ready = ray.ready()
            began = time.monotonic()
            errors = sweep._round(ray, ready, opened.study.cells, folder)
            took = time.monotonic() - began
            points = [(time.monotonic(), num_points(opened))]
            assert not errors, errors
            print(f"{clock.done} trials in {took:.1f} s: {clock.done / took:.1f} a second; "
                  f"first after {clock.marks[0][0] - began:.1f} s")  # fmt: skip
        points.append((time.monotonic(), num_points(opened)))
        sweep.mlflow.finish()
        points.append((time.monotonic(), num_points(opened)))
        assert sweep.mlflow.lag is None, sweep.mlflow.lag
        (_, first), (after, second), (end, third) = points
        print(f"MLflow: {first} points beside the trials, {first / took:.0f} a second; then {third - second} in "
              f"{end - after:.0f} s, {(third - second) / (end - after):.0f} a second")  # fmt: skip
    before = clock.marks[0]
    for mark in clock.marks:
        rate = (mark[1] - before[1]) / (mark[0] - before[0]) if mark is not before else 0.0
        print(f"  {mark[1]:6} trials: {rate:6.1f} a second, driver {mark[2]:.0f} MB, Ray's driver {mark[3]:.0f} MB")
        before = mark
    calls, files = asked_by_a_trial(opened)
    print(f"a trial of {opened.num_tasks} tasks asks the coordinator {calls.total()} times {dict(calls)}, "
          f"the storage {dict(files)}")  # fmt: skip


if __name__ == "__main__":
    main()
