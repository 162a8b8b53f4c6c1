"""Where the time and memory of a sweep go: `python tests/benchmarks/quickstart.py [EXP] [KEY=VALUE ...]`.

Runs the experiment (default: experiments/quickstart.yaml) on an empty storage and prints a table: wall seconds of
each phase as the driver sees them, worker seconds of each stage as the store has them, trainings done against asked,
and the peak memory of the whole process tree (proportional set size, so that shared pages count once).
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from time_ray import api
from time_ray.events import CellsRunning, Event, ExpertTrained, Status
from time_ray.results import CellResult

PHASES = {
    "starting Ray": "before Ray",
    "starting trials": "Ray start and drawing data",
    "first cell": "trials: start to first cell",
    "first expert": "trials: first cell to first trained expert",
    "writing MLflow": "trials: rest",
    "end": "MLflow, after the last cell",
}


class Clock:
    """Notes when each phase is over."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.marks: dict[str, float] = {}

    def watch(self, event: Event) -> None:
        match event:
            case Status(text) if text.startswith("starting") and "trial" in text:
                self.mark("starting trials")
            case Status(text) if text in PHASES:
                self.mark(text)
            case CellsRunning():
                self.mark("first cell")
            case ExpertTrained():
                self.mark("first expert")

    def mark(self, name: str) -> None:
        self.marks.setdefault(name, time.monotonic() - self.started)

    def rows(self) -> list[tuple[str, float]]:
        done, rows = 0.0, []
        for name, title in PHASES.items():
            if name in self.marks:
                rows.append((title, self.marks[name] - done))
                done = self.marks[name]
        return rows


class PeakMemory(threading.Thread):
    """The largest memory of this process and all below it, looked at every three seconds: a look is not free."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.over.wait(3):
            self.peak = max(self.peak, sum(_pss(process) for process in [me, *me.children(recursive=True)]))


def _pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def stage_seconds(results: list[CellResult]) -> dict[str, float]:
    """Worker seconds by stage; what cells share counts once. Models of one pass took the same time, but are several."""
    spent: dict[tuple[object, str, float], None] = {}
    for result in results:
        for row in result.rows:
            scored = tuple(row.accuracy.values())
            spent.update(
                {(scored if stage == "eval" else "", stage, took): None for stage, took in row.seconds.items()}
            )
    totals: dict[str, float] = {}
    for _, stage, seconds in spent:
        totals[stage] = totals.get(stage, 0.0) + seconds
    return totals


def main() -> None:
    arguments = sys.argv[1:] or ["experiments/quickstart.yaml"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIME_RAY_STORAGE"] = str(Path(folder, "runs"))
        clock, memory = Clock(), PeakMemory()
        memory.start()
        opened = api.open_experiment(arguments[0], arguments[1:])
        plan = api.plan(opened)
        outcome = api.sweep(opened, clock.watch)
        clock.mark("end")
        memory.over.set()
        trained = len(opened.store.keys("weights") & _experts(outcome.results))
    print(f"{'phase':45} {'wall s':>8}")
    for title, seconds in clock.rows():
        print(f"{title:45} {seconds:8.1f}")
    print(f"{'total':45} {outcome.seconds:8.1f}\n")
    for stage, seconds in stage_seconds(outcome.results).items():
        print(f"{'stage ' + stage + ', over all workers':45} {seconds:8.1f}")
    print(f"\ncells done {sum(r.done for r in outcome.results)} of {len(outcome.results)}, exit {outcome.exit_code}")
    print(f"trainings: {trained} done, {plan.trainings.distinct} planned, {plan.trainings.asked} asked for")
    print(f"peak memory of all processes: {memory.peak / 1e9:.2f} GB")


def _experts(results: list[CellResult]) -> set[str]:
    return {step.expert.key for result in results for step in result.cell.walk()}


if __name__ == "__main__":
    main()
