"""How long the tied-best set of a large sweep takes: `python tests/benchmarks/tied_best.py [CELLS [SEEDS]]`.

Cells (default: 10,000) on 5 seeds, near to each other and of four sizes of noise. Prints wall and CPU seconds of the
prior's fit and of set and intervals with that prior, and the peak memory of the process.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from time_ray.core.tied_best import fit_prior, tied_best

Answer = TypeVar("Answer")


def timed(name: str, ask: Callable[[], Answer]) -> Answer:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = ask()
    print(f"{name}: {time.perf_counter() - wall:.1f} s, CPU {time.process_time() - cpu:.1f} s")
    return answer


def main() -> None:
    cells, seeds = (*(int(text) for text in sys.argv[1:]), *(10_000, 5)[len(sys.argv) - 1 :])
    generator = np.random.default_rng(0)
    noise = generator.choice([0.5, 1.0, 1.5, 2.2], (cells, 1)) * generator.normal(size=(cells, seeds))
    values = generator.normal(50, 1.5, (cells, 1)) + generator.normal(0, 3, seeds) + noise
    prior = timed("prior", lambda: fit_prior(values))
    found = timed("set and intervals", lambda: tied_best(values, prior=prior))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{cells} cells x {seeds} seeds: {found.in_set.sum()} tied; prior {prior}; peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
