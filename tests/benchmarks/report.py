"""`time-ray report` on many cells: `python tests/benchmarks/report.py [TECHNIQUES] [SEEDS] [TASKS]` (8, 5 and 20).

Twelve cells a technique and seed, none of them trained: their outcomes of 200 images a dataset are made up. The command
runs in a process of its own, on a store that it has not read before. Seconds, CPU seconds and bytes.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "support"))

import scored_store

from time_ray.core.grid import Cell

INITS = {"zs": 2.0, "ft": 0.0, "ema": 3.0, "all": 2.5}


def scores(cell: Cell, task: int, length: float) -> dict[str, float]:
    """Learned a little with every task, and kept a little less."""
    chance = random.Random(f"{cell.name} {task}")
    rate = (2 + INITS[cell.init.name] / 4) * length * 20 / len(cell.setting.trainings)
    found = {name: 15 + rate * task + chance.gauss(0, 2) for name in cell.setting.adaptation}
    return found | {name: 85 - rate * length * task + chance.gauss(0, 2) for name in cell.setting.evaluation}


def main() -> None:
    techniques, seeds, tasks = (int(word) for word in (*sys.argv[1:], *("8", "5", "20")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        keeps = [round(0.9 * (number + 1) / techniques, 3) for number in range(techniques)]
        opened = scored_store.experiment(
            Path(folder),
            technique=[{"name": "ties", "keep": keep} for keep in keeps],
            seed=list(range(seeds)),
            stream={"tasks": tasks},
            data="mini",
            evaluation={"lengths": [0.5, 0.75]},
        )
        made = time.perf_counter()
        scored_store.record(opened.store, opened.study.everything, scores)
        print(f"{len(opened.study.cells)} cells of {tasks} tasks, made in {time.perf_counter() - made:.0f} s")
        page = Path(folder) / "report.html"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "time_ray", "report", opened.path, "-o", str(page)], check=True)
        wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{wall:.1f} s, {used.ru_utime + used.ru_stime:.1f} CPU s, {used.ru_maxrss / 1e6:.2f} GB of memory")
        print(f"{page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
