"""A real sweep beside its simulation: `python tests/benchmarks/schedule_real.py [--slots 2] [EXP] [KEY=VALUE ...]`.

Times every model as `plan --measure` does, then runs the experiment (default: experiments/quickstart.yaml) on an empty
storage as trials of one trajectory each, longest chain first, on so many threads of this process with one coordinator.
Printed are the makespan beside what the simulator says of it, with each stage's own seconds as costs and with the
rates of --measure; and these rates beside those that the sweep itself measured. Threads share the interpreter and the
cores, which is in the stages' own seconds.
"""

import argparse
import os
import queue
import tempfile
import threading
import time

import torch

from time_ray import api
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.work import work
from time_ray.core.grid import Cell
from time_ray.core.plan import NOTHING
from time_ray.core.schedule import SimulatedTrial, Simulator
from time_ray.opened import Opened
from time_ray.rates import measured
from time_ray.results import read_results
from time_ray.store.store import Store
from time_ray.trials import by_trajectory
from time_ray.workload import TrialNeeds, workload


def run(opened: Opened, order: list[list[Cell]], slots: int) -> float:
    """Seconds until all trials are over."""
    waiting: queue.SimpleQueue[list[Cell]] = queue.SimpleQueue()
    for group in order:
        waiting.put(group)
    coordinator = LocalCoordinator()

    def one_after_another() -> None:
        backend = SweepBackend(opened.study, Store(opened.files), coordinator)
        while True:
            try:
                group = waiting.get_nowait()
            except queue.Empty:
                return
            work(group, backend)

    threads = [threading.Thread(target=one_after_another) for _ in range(slots)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def own_costs(opened: Opened, trials: list[SimulatedTrial]) -> list[SimulatedTrial]:
    """The trials with the seconds that the store has of every piece."""

    def spent(key: str) -> float:
        store = opened.store
        entry = store.entry("weights", key) or store.entry("scores", key)
        seconds: dict[str, float] = entry["seconds"]  # type: ignore[index,assignment]
        return sum(seconds.values())

    return [
        trial._replace(stages=[[piece._replace(seconds=spent(piece.key)) for piece in stage] for stage in trial.stages])
        for trial in trials
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("words", nargs="*", default=["experiments/quickstart.yaml"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIME_RAY_STORAGE"] = folder
        opened = api.open_experiment(given.words[0], [*given.words[1:], "run.workers=0"])
        before = api.measure(opened)
        groups = list(by_trajectory(opened.study.cells).values())
        needs = {model: TrialNeeds(rate, 1.0, 0) for model, rate in before.items()}
        foreseen = Simulator(workload(opened.study.cells, needs, NOTHING).trials)
        order = sorted(range(len(groups)), key=lambda number: -foreseen.chains[number])
        actual = run(opened, [groups[number] for number in order], given.slots)
        after = measured(read_results(opened.study.cells, opened.store))
        again = api.measure(opened)
        # the real order, whatever the stages' own seconds make of the chains
        trials = own_costs(opened, foreseen.trials)
        simulated = Simulator(trials).on(given.slots)
        total = Simulator(trials).totals.work
    print(f"real makespan {actual:.1f} s on {given.slots} slots, {len(groups)} trials")
    print(f"simulated from the stages' own seconds {simulated.seconds:.1f} s: {simulated.seconds / actual:.3f} of it")
    print(f"work {total:.1f} s, busy {total / given.slots / actual:.0%} really, "
          f"{total / given.slots / simulated.seconds:.0%} simulated")  # fmt: skip
    ahead = foreseen.on(given.slots).seconds
    print(f"simulated from the rates of --measure {ahead:.1f} s: {ahead / actual:.3f} of it")
    for model, rate in after.items():
        for what, rates in (("--measure before", before), ("--measure after", again)):
            print(f"{model}, {what}: {_beside(rates[model].step, rate.step, 's a step')}, "
                  f"{_beside(rates[model].evaluation, rate.evaluation, 's an evaluation')}")  # fmt: skip


def _beside(foreseen: float, real: float, unit: str) -> str:
    return f"{foreseen:.4f} {unit}, {foreseen / real:.2f} of the sweep's {real:.4f}"


if __name__ == "__main__":
    main()
