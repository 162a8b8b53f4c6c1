"""The batches of a task: which samples, which of their captions, which crop, all from (seed, task, step) alone."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from time_ray.core.errors import UserError
from time_ray.core.mixture import Mixture
from time_ray.core.preprocessing import Resizing
from time_ray.core.recipe import TaskTraining
from time_ray.core.stream import Concept, Task
from time_ray.data.batch import Batch
from time_ray.data.crop import CROP_DRAWS, crop
from time_ray.data.dataset import Data, Dataset, Split
from time_ray.data.images import Decoded
from time_ray.data.prefetch import PendingBatch, prefetched
from time_ray.data.randomness import Randomness, unit

Integers = NDArray[np.int64]
Augment = Literal["none", "crop"]
CHUNK = 16  # images that one thread reads and decodes at a time


class _RowRef(NamedTuple):
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
    resizing: Resizing,
    augment: Augment,
    rank: int = 0,
    world_size: int = 1,
    loaders: int = 0,
    pinned: bool = False,
) -> Iterator[Batch]:
    """A worker's slice of each global batch of a task, from `start_step` to `steps`.

    Update samples cycle through shuffles of the task's training images; buffer samples are drawn with replacement
    from those of all earlier tasks, or from a uniform sample of `mixture.buffer_size` of them; pretraining samples
    pass through shuffles of the pool. The workers' slices in order of rank are the batch of a single worker.

    Args:
        task: what is learned now.
        earlier: the tasks before it, which the buffer remembers.
        data: the datasets of the experiment.
        mixture: shares of pretraining, update and buffer samples in a global batch.
        start_step: the first step that is asked for, from 0.
        batch_size: pairs of a global batch, over all workers.
        steps: of the task, from 0.
        seed: with the task's number and the step it decides every draw.
        resizing: how images become squares of the model's size.
        augment: `none` for the whole image so resized, `crop` for random resized crops.
        rank: of this worker.
        world_size: workers.
        loaders: threads that make the coming batches while one is in use; 0: each is made when it is asked for.
        pinned: images are in memory from which a GPU takes them without anybody waiting.

    Returns:
        Batches of batch_size / world_size pairs: uint8 images [B, 3, size, size] and B texts, on the CPU.

    Raises:
        UserError: there is nothing to draw from, or the batch cannot be split evenly.
        CellError: naming the row, when it comes to a broken image.

    """
    counts = mixture.counts(batch_size, first_task=not earlier)
    before = [concept for past in earlier for concept in past.concepts]
    components = []
    if counts.pretraining:
        components.append(_Component("pretraining", counts.pretraining, _cycling, _pool(data.pretraining)))
    if counts.update:
        components.append(_Component("update", counts.update, _cycling, _rows(task.concepts, data.adaptation)))
    if counts.buffer:
        remembered = _remembered(_rows(before, data.adaptation), data.adaptation, mixture.buffer_size, seed)
        components.append(_Component("buffer", counts.buffer, _uniform, remembered))
    UserError.unless_none(_faults(task, components, batch_size, world_size))
    picks = [component.picks(seed, task.number) for component in components]
    details = Randomness(seed, task.number, "details")
    share = batch_size // world_size
    mine = slice(rank * share, (rank + 1) * share)

    def prepare(step: int) -> PendingBatch[Batch]:
        samples = [sample for pick in picks for sample in pick(step)]
        draws = details.block(step, batch_size * (1 + CROP_DRAWS)).reshape(batch_size, -1)
        return _pending_batch(samples[mine], draws[mine], resizing, augment, pinned=pinned)

    return prefetched(prepare, range(start_step, steps), loaders)


def training_batches(
    training: TaskTraining,
    data: Data,
    *,
    resizing: Resizing,
    steps: int,
    rank: int = 0,
    world_size: int = 1,
    loaders: int = 0,
    pinned: bool = False,
) -> Callable[[int], Iterator[Batch]]:
    """The batches of a training as its recipe says, from a step on, as far as `steps`; the rest as for `batches`."""
    return partial(
        batches,
        training.task,
        training.earlier,
        data,
        training.mixture,
        batch_size=training.config.batch_size,
        steps=steps,
        seed=training.seed,
        resizing=resizing,
        augment=training.config.augment,
        rank=rank,
        world_size=world_size,
        loaders=loaders,
        pinned=pinned,
    )


class _RowSet(NamedTuple):
    """Training samples: the splits they are in, and for each its split and its row there."""

    splits: Sequence[Split]
    split: Integers
    row: Integers

    def take(self, positions: Integers) -> list[_RowRef]:
        places = zip(self.split[positions].tolist(), self.row[positions].tolist(), strict=True)
        return [_RowRef(self.splits[split], row) for split, row in places]


class _Component(NamedTuple):
    """A part of every batch: its size, in which order, of which rows."""

    name: str
    size: int
    order: Callable[[int, int, Randomness], Callable[[int], Integers]]
    rows: _RowSet

    def picks(self, seed: int, task: int) -> Callable[[int], list[_RowRef]]:
        positions = self.order(len(self.rows.row), self.size, Randomness(seed, task, self.name))
        return lambda step: self.rows.take(positions(step))


def _faults(task: Task, components: Sequence[_Component], batch_size: int, world_size: int) -> Iterator[str]:
    for component in components:
        if not len(component.rows.row):
            yield f"task {task.number}: {component.name}: no training images to draw from; change data or mixture"
    if batch_size % world_size:
        yield f"training.batch_size: {batch_size} cannot be split over {world_size} workers; use a multiple of that"


def _cycling(total: int, count: int, randomness: Randomness) -> Callable[[int], Integers]:
    """At each step the next positions of an endless row of shuffles."""
    shuffle = lru_cache(maxsize=2)(lambda number: randomness.shuffle(number, total))

    def positions(step: int) -> Integers:
        passes, places = np.divmod(np.arange(step * count, (step + 1) * count), total)
        return np.concatenate([shuffle(number)[places[passes == number]] for number in np.unique(passes).tolist()])

    return positions


def _uniform(total: int, count: int, randomness: Randomness) -> Callable[[int], Integers]:
    """At each step positions drawn with replacement."""
    return lambda step: (randomness.block(step, count) % np.uint64(total)).astype(np.int64)


def _pool(dataset: Dataset | None) -> _RowSet:
    if dataset is None:
        return _joined([])
    split = dataset.split("train")
    return _joined([(split, np.arange(len(split)))])


def _rows(concepts: Sequence[Concept], datasets: Sequence[Dataset]) -> _RowSet:
    """The training samples of the concepts, concept after concept."""
    by_name = {dataset.card.name: dataset for dataset in datasets}
    names = {name for name, _ in concepts}
    label = {name: {text: i for i, text in enumerate(by_name[name].card.classes)} for name in names}
    parts = []
    for name, classname in concepts:
        split = by_name[name].split("train")
        parts.append((split, split.rows_of(label[name][classname])))
    return _joined(parts)


def _joined(parts: Sequence[tuple[Split, Integers]]) -> _RowSet:
    splits = list(dict.fromkeys(split for split, _ in parts))
    number = {split: i for i, split in enumerate(splits)}
    none = np.empty(0, dtype=np.int64)
    which = np.concatenate([none, *(np.full(len(rows), number[split]) for split, rows in parts)])
    return _RowSet(splits, which, np.concatenate([none, *(rows for _, rows in parts)]))


def _remembered(rows: _RowSet, datasets: Sequence[Dataset], size: int | None, seed: int) -> _RowSet:
    """A uniform sample of that many rows: those with the smallest ranks, which a row has from the seed alone.

    So it is a reservoir that needs no memory of its own: what once fell out of it never comes back.
    """
    if size is None or size >= len(rows.row):
        return rows
    name = {dataset.split("train"): dataset.card.name for dataset in datasets if "train" in dataset.card.splits}
    ranks = [Randomness(seed, 0, f"reservoir {name[split]}").block(0, len(split)) for split in rows.splits]
    firsts = np.cumsum([0, *map(len, ranks)])
    rank = np.concatenate(ranks)[firsts[rows.split] + rows.row]
    kept = np.sort(np.argsort(rank, kind="stable")[:size])
    return _RowSet(rows.splits, rows.split[kept], rows.row[kept])


def _pending_batch(
    samples: Sequence[_RowRef], draws: NDArray[np.uint64], resizing: Resizing, augment: Augment, *, pinned: bool
) -> PendingBatch[Batch]:
    """An empty batch; its parts fill it in, a few neighbours on disk at a time."""
    pixels = torch.empty((len(samples), resizing.size, resizing.size, 3), dtype=torch.uint8, pin_memory=pinned)
    batch = Batch(pixels.permute(0, 3, 1, 2), [""] * len(samples))
    places: dict[Split, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(sample.split, []).append(place)
    parts = []
    for split, here in places.items():
        here.sort(key=lambda place: samples[place].row)
        for first in range(0, len(here), CHUNK):
            some = here[first : first + CHUNK]
            rows = [samples[place].row for place in some]
            parts.append(partial(_fill, batch, some, split, rows, draws[some], resizing, augment))
    return PendingBatch(batch, parts)


def _fill(
    batch: Batch,
    places: Sequence[int],
    split: Split,
    rows: Sequence[int],
    draws: NDArray[np.uint64],
    resizing: Resizing,
    augment: Augment,
) -> None:
    """Those rows are in their places: each with the caption that its first number draws, cropped by the others."""
    for place, captions, drawn in zip(places, split.captions(rows), draws, strict=True):
        batch.texts[place] = captions[int(drawn[0] % np.uint64(len(captions)))]
    pixels = Decoded(split, resizing if augment == "none" else None).take(rows)
    if augment == "none":
        batch.images[places] = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        return
    for place, image, drawn in zip(places, pixels, unit(draws[:, 1:]), strict=True):
        batch.images[place] = crop(image, resizing, drawn)
