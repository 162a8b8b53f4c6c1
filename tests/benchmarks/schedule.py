"""How long planning and simulating a large sweep takes: `python tests/benchmarks/schedule.py [GPUS ...]`.

A grid of 4 init x 3 deploy x 8 techniques over 20 tasks, with 5 models of very different cost, 7 budgets and 3 seeds
(10,080 cells), and one of the same size with one model and one budget (105 seeds). For each number of GPUs (default:
1000) a row: the simulated makespan over the ideal, the larger of work / GPUs and the longest chain.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from toy_grid import full_grid, setting, technique

from time_ray.core.grid import Cell
from time_ray.core.plan import NOTHING, plan
from time_ray.core.schedule import Delays, Simulator
from time_ray.rates import Rate
from time_ray.workload import TrialNeeds, workload

DELAYS = Delays(15.0, 1.0)
TECHNIQUES = [technique(f"technique {number}") for number in range(8)]
# seconds a step and an evaluation, GPUs: about S/16, B/16, L/14, H/14, g/14 on H100s
MODELS = {"S": (0.05, 20, 1), "B": (0.2, 60, 1), "L": (1.0, 240, 1), "H": (2.0, 500, 2), "g": (3.0, 800, 4)}


def mixed() -> tuple[list[Cell], dict[str, TrialNeeds]]:
    """Models of all sizes, budgets from a tenth to the whole."""
    settings = [
        setting(20, model=name, seed=seed, steps=steps)
        for name in MODELS
        for steps in (142, 284, 426, 568, 710, 1065, 1420)
        for seed in range(3)
    ]
    needs = {name: TrialNeeds(Rate(step, evaluation), gpus, 10**9) for name, (step, evaluation, gpus) in MODELS.items()}
    return list(full_grid(TECHNIQUES, *settings)), needs


def uniform() -> tuple[list[Cell], dict[str, TrialNeeds]]:
    """Trajectories that all take nearly the same."""
    settings = [setting(20, seed=seed, steps=1420) for seed in range(105)]
    return list(full_grid(TECHNIQUES, *settings)), {"toy": TrialNeeds(Rate(0.2, 60), 1, 10**9)}


def report(name: str, cells: list[Cell], needs: dict[str, TrialNeeds], gpus: Sequence[int]) -> None:
    marks = [time.perf_counter()]
    plan(cells)
    marks.append(time.perf_counter())
    todo = workload(cells, needs, NOTHING)
    marks.append(time.perf_counter())
    simulator = Simulator(todo.trials, delays=DELAYS)
    schedules = {count: simulator.on(count) for count in gpus}
    marks.append(time.perf_counter())
    most = simulator.enough()
    marks.append(time.perf_counter())
    spent = dict(zip(("plan", "workload", "simulation", "search"), map(float.__sub__, marks[1:], marks), strict=True))
    print(f"{name}: {len(cells)} cells, {len(todo.trials)} trials; beyond {most} GPUs nothing gets faster")
    print(
        " ", ", ".join(f"{what} {seconds:.1f} s" for what, seconds in spent.items()), f"= {sum(spent.values()):.1f} s"
    )
    longest, work = max(simulator.chains), simulator.totals.work
    for count, schedule in schedules.items():
        ideal = max(work / count, longest)
        held = schedule.held / (count * schedule.seconds)
        print(
            f"  {count} GPUs: {schedule.seconds / 3600:.2f} h, {schedule.seconds / ideal:.3f} of the ideal "
            f"{ideal / 3600:.2f} h (longest chain {longest / 3600:.2f} h), "
            f"busy {work / (count * schedule.seconds):.0%}, held {held:.0%}"
        )


def main() -> None:
    gpus = [int(text) for text in sys.argv[1:]] or [1000]
    for name, grid in (("mixed", mixed), ("uniform", uniform)):
        report(name, *grid(), gpus)


if __name__ == "__main__":
    main()
