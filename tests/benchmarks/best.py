"""`time-ray best` on many cells: `python tests/benchmarks/best.py [CELLS] [SEEDS]` (10,000 and 5).

The cells are of a grid without tensors; their scores, with outcomes of 8,000 images in twenty datasets, are in memory,
where a store would have to be read: that is timed by itself, on 1,000 of them. CPU seconds, and how they share out.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import numpy as np

from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import ranking
from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.metrics import AccuracyHistory
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import Outcomes, Question, accuracies, is_for_selection, labelled, packed
from time_ray.core.recipe import Base, ResolvedTechnique, TaskTraining
from time_ray.core.scoring import WHOLE
from time_ray.core.strategies import read
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training
from time_ray.per_image import PerImage, TestImages
from time_ray.results import CellResult, TaskResult
from time_ray.store.files import Files
from time_ray.store.store import Store

DATASETS = tuple(f"dataset {number}" for number in range(20))
IMAGES = 400  # of each
READ = 1000  # of the scores are also read from a store


class InMemory(PerImage):
    """Outcomes that no store has."""

    def __init__(self, store: Store, images: TestImages) -> None:
        super().__init__(store)
        self.kept: dict[str, Outcomes] = {}
        self.outcomes = self.kept.__getitem__  # type: ignore[assignment]
        self._of_all = images

    def test_images(self, setting: Setting) -> TestImages:
        del setting  # all have the same
        return self._of_all

    def has_outcomes(self, scores_key: str) -> bool:
        return scores_key in self.kept


def setting(seed: int) -> Setting:
    task = Task(1, tuple(Concept(name, "a class") for name in DATASETS[:11]))
    training = TaskTraining(task, (), Training(lr=1e-3), Mixture(), 10, seed, "data")
    base = Base("toy", "digest")
    where = (DATASETS[:11], DATASETS[11:])
    return Setting(ModelSpec(name="toy"), "10 steps", seed, base, (training,), *where, "scored", WHOLE)


def cells(count: int, seeds: int) -> list[Cell]:
    """Four inits, one deploy, and as many techniques as it takes."""
    names = [f"technique {number}" for number in range(count // 4)]
    techniques = [ResolvedTechnique(n, n, 1, {}, {}, weighted=False, identity_of_one=False) for n in names]
    inits = [read({"name": "ema", "weight": weight}) for weight in (0.2, 0.4, 0.6, 0.8)]
    return list(grid(inits, [read("all")], techniques, [setting(seed) for seed in range(seeds)]))


def test_images() -> TestImages:
    select = {
        Question(name): np.array([is_for_selection(name, str(row)) for row in range(IMAGES)]) for name in DATASETS
    }
    labels = {Question(name): np.zeros(IMAGES, dtype=np.int64) for name in DATASETS}
    return TestImages(select, labels, {name: ["a class"] for name in DATASETS})


def result(cell: Cell, images: InMemory, generator: np.random.Generator) -> CellResult:
    """A finished cell; all are about as good."""
    rows = []
    for step in cell.walk():
        key = cell.setting.scores_key(step.deployed) + cell.init.label
        right = generator.random((len(DATASETS), IMAGES)) < generator.normal(0.6, 0.02)
        images.kept[key] = {Question(name): bits for name, bits in zip(DATASETS, right, strict=True)}
        accuracy: Mapping[str, float] = accuracies(images.kept[key])
        history = AccuracyHistory([accuracy, accuracy], cell.setting.adaptation, cell.setting.evaluation)
        rows = [TaskResult(0, history, {}, key), TaskResult(1, history, {}, key)]
    return CellResult(cell, tuple(rows), "key", {})


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    count, seeds = (int(word) for word in (*sys.argv[1:], *("10000", "5")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Files(folder))
        of_all = test_images()
        images = InMemory(store, of_all)
        generator = np.random.default_rng(0)
        results = [result(cell, images, generator) for cell in cells(count, seeds)]
        halves = Halves(store)
        halves.images = images
        spent = cpu(lambda: ranking(results, halves))
        print(f"{count} cells x {seeds} seeds: ranked in {spent:.1f} CPU s")

        keys = list(images.kept)[:READ]
        for key in keys:
            store.put_scores(key, packed(images.kept[key]), {"accuracy": {}})
        with_labels = sum(array.nbytes for array in {**packed(of_all.select), **labelled(of_all.labels)}.values())
        size = sum(array.nbytes for array in packed(images.kept[keys[0]]).values())
        fresh = PerImage(Store(Files(folder)))
        wall = time.perf_counter()
        for key in keys:
            fresh.outcomes(key)
        print(
            f"{len(keys)} read from a local store in {time.perf_counter() - wall:.1f} s: {size} bytes each of outcomes"
        )
        print(f"once a setting: {with_labels} bytes of halves and labels")


if __name__ == "__main__":
    main()
