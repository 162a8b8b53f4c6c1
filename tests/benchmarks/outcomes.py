"""What keeping outcomes adds to an evaluation: `python tests/benchmarks/outcomes.py`. Seconds and bytes a model.

One mini-tiny model is evaluated on the whole mini world, and its scores are kept in a local store with outcomes and
without, in turns, under names of their own each time.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from time_ray.clip.evaluate import outcomes
from time_ray.clip.models import base_weights, create
from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import accuracies, packed
from time_ray.data.sources import prepare
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import find_datasets

TIMES = 200
EXPERIMENT = {"name": "b", "init": "ft", "deploy": "ft", "technique": "average", "model": "mini-tiny"}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = Files(folder)
        found = find_datasets(Experiment(**EXPERIMENT, budget="1 steps", data="mini"), files)
        prepare(found.all, print)
        data, spec = found.open(), ModelSpec(name="mini-tiny")
        clip, weights = create(spec), base_weights(spec)
        scored = (*data.adaptation, *data.evaluation)
        outcomes(clip, [weights], scored)  # what is read and decoded once
        evaluation = seconds(lambda: outcomes(clip, [weights], scored))
        (right,) = outcomes(clip, [weights], scored)
        store, about = Store(files), {"accuracy": accuracies(right), "distance": 0.0}

        def plain(number: int) -> None:
            store.record("scores", f"{number:032x}", about)

        def with_outcomes(number: int) -> None:
            others = {question: np.roll(bits, number) for question, bits in right.items()}  # as of another model
            store.put_scores(f"{number + TIMES:032x}", packed(others), about)

        spent = {plain: 0.0, with_outcomes: 0.0}
        for number in range(TIMES):
            for keep in spent:
                spent[keep] += seconds(partial(keep, number))
        added = (spent[with_outcomes] - spent[plain]) / TIMES
        size = sum(array.nbytes for array in packed(right).values())
        print(f"evaluation {evaluation:.2f} s a model; scores kept in {1000 * spent[plain] / TIMES:.1f} ms")
        print(f"outcomes add {1000 * added:.1f} ms, {100 * added / evaluation:.2f} % of it, and {size} bytes of bits")


if __name__ == "__main__":
    main()
