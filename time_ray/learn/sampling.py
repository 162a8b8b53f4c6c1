"""The batches of a task: which samples, which of their captions, which crop, all from (seed, task, step) alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from time_ray.core.errors import UserError
from time_ray.core.mixture import Mixture
from time_ray.core.stream import Concept, Task
from time_ray.learn.dataset import Dataset, Split
from time_ray.learn.images import CROP_DRAWS, Decoded, Pixels, crop
from time_ray.learn.randomness import Randomness, unit
from time_ray.learn.train import Batch

Integers = NDArray[np.int64]
Augment = Literal["none", "crop"]


@dataclass(frozen=True)
class Data:
    """The datasets of an experiment: learned from, only evaluated on, and the pretraining pool for replay."""

    adaptation: tuple[Dataset, ...]
    evaluation: tuple[Dataset, ...]
    pretraining: Dataset | None


class _Sample(NamedTuple):
    split: Split
    row: int


def batches(
    task: Task,
    earlier: Sequence[Task],
    data: Data,
    mixture: Mixture,
    start_step: int = 0,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    image_size: int,
    augment: Augment,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """A worker's slice of each global batch of a task, from `start_step` to `steps`.

    Update samples cycle through shuffles of the task's training images; buffer samples are drawn with replacement
    from those of all earlier tasks; pretraining samples pass through shuffles of the pool. The workers' slices in
    order of rank are the batch of a single worker. Raises UserError where there is nothing to draw from, or if the
    batch cannot be split evenly.
    """
    counts = mixture.counts(batch_size, first_task=not earlier)
    before = [concept for past in earlier for concept in past.concepts]
    sources = []
    if counts.pretraining:
        sources.append(_Source("pretraining", counts.pretraining, _cycling, _pool(data.pretraining)))
    if counts.update:
        sources.append(_Source("update", counts.update, _cycling, _rows(task.concepts, data.adaptation)))
    if counts.buffer:
        sources.append(_Source("buffer", counts.buffer, _uniform, _rows(before, data.adaptation)))
    UserError.unless_none(_faults(task, sources, batch_size, world_size))
    picks = [source.picks(seed, task.number) for source in sources]
    details = Randomness(seed, task.number, "details")
    share = batch_size // world_size
    mine = slice(rank * share, (rank + 1) * share)

    def batch(step: int) -> Batch:
        samples = [sample for pick in picks for sample in pick(step)]
        draws = details.block(step, batch_size * (1 + CROP_DRAWS)).reshape(batch_size, -1)
        return _batch(samples[mine], draws[mine], image_size, augment)

    return map(batch, range(start_step, steps))


class _Rows(NamedTuple):
    """Training samples: the splits they are in, and for each its split and its row there."""

    splits: Sequence[Split]
    split: Integers
    row: Integers

    def take(self, positions: Integers) -> list[_Sample]:
        places = zip(self.split[positions].tolist(), self.row[positions].tolist(), strict=True)
        return [_Sample(self.splits[split], row) for split, row in places]


class _Source(NamedTuple):
    """A part of every batch: its size, in which order, of which rows."""

    name: str
    size: int
    order: Callable[[int, int, Randomness], Callable[[int], Integers]]
    rows: _Rows

    def picks(self, seed: int, task: int) -> Callable[[int], list[_Sample]]:
        positions = self.order(len(self.rows.row), self.size, Randomness(seed, task, self.name))
        return lambda step: self.rows.take(positions(step))


def _faults(task: Task, sources: Sequence[_Source], batch_size: int, world_size: int) -> Iterator[str]:
    for source in sources:
        if not len(source.rows.row):
            yield f"task {task.number}: {source.name}: no training images to draw from; change data or mixture"
    if batch_size % world_size:
        yield f"training.batch_size: {batch_size} cannot be split over {world_size} workers; use a multiple of that"


def _cycling(total: int, count: int, randomness: Randomness) -> Callable[[int], Integers]:
    """At each step the next positions of an endless row of shuffles."""
    shuffle = lru_cache(maxsize=2)(lambda number: randomness.shuffle(number, total))

    def positions(step: int) -> Integers:
        return np.array([shuffle(place // total)[place % total] for place in range(step * count, (step + 1) * count)])

    return positions


def _uniform(total: int, count: int, randomness: Randomness) -> Callable[[int], Integers]:
    """At each step positions drawn with replacement."""
    return lambda step: (randomness.block(step, count) % np.uint64(total)).astype(np.int64)


def _pool(dataset: Dataset | None) -> _Rows:
    if dataset is None:
        return _joined([])
    split = dataset.split("train")
    return _joined([(split, np.arange(len(split)))])


def _rows(concepts: Sequence[Concept], datasets: Sequence[Dataset]) -> _Rows:
    """The training samples of the concepts, concept after concept."""
    by_name = {dataset.card.name: dataset for dataset in datasets}
    names = {name for name, _ in concepts}
    label = {name: {text: i for i, text in enumerate(by_name[name].card.classes)} for name in names}
    parts = []
    for name, classname in concepts:
        split = by_name[name].split("train")
        parts.append((split, split.rows_of(label[name][classname])))
    return _joined(parts)


def _joined(parts: Sequence[tuple[Split, Integers]]) -> _Rows:
    splits = list(dict.fromkeys(split for split, _ in parts))
    number = {split: i for i, split in enumerate(splits)}
    none = np.empty(0, dtype=np.int64)
    which = np.concatenate([none, *(np.full(len(rows), number[split]) for split, rows in parts)])
    return _Rows(splits, which, np.concatenate([none, *(rows for _, rows in parts)]))


def _batch(samples: Sequence[_Sample], draws: NDArray[np.uint64], image_size: int, augment: Augment) -> Batch:
    images = np.empty((len(samples), image_size, image_size, 3), dtype=np.uint8)
    texts = [""] * len(samples)
    places: dict[Split, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(sample.split, []).append(place)
    for split, here in places.items():
        rows = [samples[place].row for place in here]
        pixels = Decoded(split, image_size if augment == "none" else None).take(rows)
        for place, image, captions in zip(here, pixels, split.captions(rows), strict=True):
            texts[place] = captions[int(draws[place, 0] % np.uint64(len(captions)))]
            images[place] = _cropped(image, image_size, draws[place, 1:]) if augment == "crop" else image
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), texts)


def _cropped(pixels: Pixels, size: int, draws: NDArray[np.uint64]) -> Pixels:
    return np.asarray(crop(Image.fromarray(pixels), size, unit(draws)))
