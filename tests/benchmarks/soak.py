"""Whether a long sweep leaks: `python tests/benchmarks/soak.py [SEEDS]`.

Runs hundreds of cells of trivial cost (one step each, the smallest datasets) through real Ray and MLflow, and prints
memory (proportional set size), open files and threads of the driver (which holds the MLflow client), of the process
that speaks with Ray, of the raylet, the GCS, the coordinator and training workers: at the first cell, in the middle,
at the last, and after the last cell is in MLflow. And cells per minute, from the first to the last.
"""

import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import yaml

from time_ray import api
from time_ray.events import CellDone, Event

KINDS = {
    "Ray driver": "time_ray.cluster.ray_driver",
    "raylet": "raylet/raylet",
    "GCS": "gcs/gcs_server",
    "coordinator": "ray::LocalCoordinator",
    "training worker": "ray::RayTrainWorker",
}
EXPERIMENT = {
    "name": "soak",
    "init": ["ft", "ema"],
    "deploy": ["ft", "ema", "all"],
    "technique": [{"name": "ties", "keep": round(0.1 + 0.1 * i, 1)} for i in range(9)],
    "model": "mini-tiny",
    "budget": "1 steps",
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 2},
    "training": {"batch_size": 2, "augment": "none"},
    "run": {"workers": 1, "trials": 1, "cache_gb": 0.1},  # a worker may keep weights up to this: not a leak
}
Look = dict[str, tuple[float, int, int]]


class Watcher(threading.Thread):
    """Looks at all processes every few seconds, and notes how many cells were done."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self.times: list[float] = []
        self.looks: list[tuple[int, Look]] = []
        self.over = threading.Event()

    def take(self, event: Event) -> None:
        if isinstance(event, CellDone):
            self.done += 1
            self.times.append(time.monotonic())

    def run(self) -> None:
        while not self.over.wait(1):
            if self.done:
                self.looks.append((self.done, look()))


def look() -> Look:
    """PSS in MB, open files and threads, by kind of process."""
    me = psutil.Process()
    found = {"driver": me}
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            found.update({kind: process for kind, part in KINDS.items() if part in title})
    return {kind: measured for kind, process in found.items() if (measured := measure(process))}


def measure(process: psutil.Process) -> tuple[float, int, int] | None:
    try:
        return process.memory_full_info().pss / 1e6, process.num_fds(), process.num_threads()
    except psutil.Error:
        return None


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "soak.yaml")
        experiment = {**EXPERIMENT, "seed": list(range(seeds)), "storage": str(Path(folder, "runs"))}
        path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
        opened = api.open_experiment(path)
        watcher = Watcher()
        watcher.start()
        outcome = api.sweep(opened, watcher.take)
        after = time.monotonic()
        watcher.over.set()
        watcher.join()
    print(f"cells done {sum(r.done for r in outcome.results)} of {len(outcome.results)}, exit {outcome.exit_code}")
    print(f"MLflow lacks: {outcome.tracking_error or 'nothing'}")
    minutes = (watcher.times[-1] - watcher.times[0]) / 60
    print(f"cells a minute, first to last: {(len(watcher.times) - 1) / minutes:.0f}; {outcome.seconds:.0f} s in all")
    print(f"MLflow after the last cell: {after - watcher.times[-1]:.0f} s\n")
    on_ray = [seen for seen in watcher.looks if "training worker" in seen[1]]
    chosen = [on_ray[0], on_ray[len(on_ray) // 2], on_ray[-1], watcher.looks[-1]]
    print(f"{'MB PSS / open files / threads':30}" + "".join(f"{f'after {done} cells':>24}" for done, _ in chosen))
    for kind in ("driver", *KINDS):
        cells = [seen.get(kind) for _, seen in chosen]
        print(f"{kind:30}" + "".join(f"{shown(cell):>24}" for cell in cells))


def shown(measured: tuple[float, int, int] | None) -> str:
    return "ended" if measured is None else f"{measured[0]:.0f} / {measured[1]} / {measured[2]}"


if __name__ == "__main__":
    main()
