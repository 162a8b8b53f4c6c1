"""Evaluation: several models on the test split of each dataset, in one pass over the images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import normalize

from time_ray.clip.arithmetic import Arithmetic
from time_ray.clip.features import image_features, pinned, text_features, to_device
from time_ray.clip.halving import Halving
from time_ray.clip.models import Clip
from time_ray.clip.retrieval import Pairs, recall_hits
from time_ray.core.errors import UserError
from time_ray.core.outcomes import CUTOFFS, DIRECTIONS, Outcomes
from time_ray.core.precision import evaluation_precision
from time_ray.core.preprocessing import Resizing
from time_ray.core.scoring import WHOLE, Scoring
from time_ray.data.dataset import Card, Dataset
from time_ray.data.image_cache import ImageBlock, ImageCache
from time_ray.data.images import Decoded, fits_in_memory
from time_ray.data.prefetch import one_ahead
from time_ray.data.questions import questions
from time_ray.data.subset import lacks, scored_rows

RowNumbers = NDArray[np.int64]

SMALL_BATCH = 32  # smaller ones take longer than a second pass with half of the models


def outcomes(
    clip: Clip,
    models: Sequence[Mapping[str, Tensor]],
    datasets: Sequence[Dataset],
    *,
    scoring: Scoring = WHOLE,
    seed: int = 0,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    shard: tuple[int, int] = (0, 1),
    loaders: int = 0,
    cache: ImageCache | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> list[Outcomes]:
    """For each model what it has right on the split "test" of each dataset; `core.outcomes.accuracies` scores that.

    Classification: whether an image is nearest to its own class, which is the mean of its prompts' unit vectors.
    Retrieval: see `retrieval.recall_hits`. What a model has right does not depend on those beside it.

    Args:
        clip: the architecture, its tokenizer and its preprocessing.
        models: weights by name; all of them fit on the device together.
        datasets: with a split "test" each.
        scoring: prompts and the share of images, where they are not the dataset's own and all.
        seed: chooses the images if `scoring` asks for a subset.
        batch_size: images, and texts, that go through a model at a time; fewer once memory is short.
        device: where the models run.
        shard: (rank, workers): each worker looks at its part of every test split, and all get the whole result by
            torch.distributed.
        loaders: threads that decode the next images while models look at some.
        cache: keeps decoded images that are too large for memory.
        on_batch: called before models look at a batch of images.

    Returns:
        One mapping a model, of the questions that `data.questions` asks, in the order of the datasets.

    Raises:
        UserError: for every dataset that cannot be scored.
        CellError: naming the row, when it comes to a broken image; or the device lacks the precision.
        torch.OutOfMemoryError: memory is short for small batches, too.

    """
    device = torch.device(device)
    arithmetic = Arithmetic(evaluation_precision(scoring.precision, None), device, "evaluation.precision")
    UserError.unless_none(fault for dataset in datasets for fault in _faults(dataset, scoring))
    if not models or not datasets:
        return [{} for _ in models]
    clips = [clip.holding(weights, device) for weights in models]
    with torch.inference_mode():
        width = text_features(clips[0], clip.tokenize([""])).shape[1]
        halving = Halving(1 if len(clips) == 1 else SMALL_BATCH)
        evaluation = _Pass(clips, width, device, arithmetic, batch_size, *shard, loaders, cache, on_batch, halving)
        parts = [(d, scored_rows(d.card, d.split("test"), scoring.subset, seed)) for d in datasets]
        if cache is not None:
            cache.expect(block for part in parts if evaluation.keeps(part[0]) for block in evaluation.blocks(*part))
        heads = evaluation.class_heads([dataset.card for dataset in datasets if not _retrieves(dataset)], scoring)
        right = torch.cat(
            [
                evaluation.retrieved(*part) if _retrieves(part[0]) else evaluation.correct(*part, next(heads))
                for part in parts
            ],
            dim=1,
        )
        if shard[1] > 1:
            dist.all_reduce(right)  # a worker's part is 0 on all others
    sizes = {question: len(about) for part in parts for question, about in questions(*part).items()}
    split = torch.split(right.bool().cpu(), list(sizes.values()), dim=1)
    return [
        {question: part[number].numpy() for question, part in zip(sizes, split, strict=True)}
        for number in range(len(models))
    ]


def _retrieves(dataset: Dataset) -> bool:
    return dataset.card.kind == "retrieval"


def _faults(dataset: Dataset, scoring: Scoring) -> Iterator[str]:
    missing = lacks(dataset.card, scoring)
    if not missing and _retrieves(dataset):
        split = dataset.split("test")
        missing = "" if any(split.captions(range(len(split)))) else "captions"
    if missing:
        yield f"dataset {dataset.card.name}: no {missing}, so it cannot be scored; leave it out or import it with some"


@dataclass(frozen=True)
class _Pass:
    """One pass of some models over images; what it finds is uint8 [models, outcomes]: 1 where a model is right.

    Outcomes of other workers' parts are 0.
    """

    clips: Sequence[Clip]
    width: int  # of their vectors
    device: torch.device
    arithmetic: Arithmetic
    batch_size: int
    rank: int
    workers: int
    loaders: int
    cache: ImageCache | None
    on_batch: Callable[[], None]
    halving: Halving

    def class_heads(self, cards: Sequence[Card], scoring: Scoring) -> Iterator[list[Tensor]]:
        """For each dataset, for each model, the unit vectors of its classes [C, D]; all prompts go through together."""
        prompts = (
            (number, template.format(name))
            for number, (name, templates) in enumerate(
                (name, scoring.templates or card.templates) for card in cards for name in card.classes
            )
            for template in templates
        )
        classes = [len(card.classes) for card in cards]
        sums = [torch.zeros(sum(classes), self.width) for _ in self.clips]
        while some := list(islice(prompts, self.batch_size)):
            numbers = torch.tensor([number for number, _ in some])
            for total, vectors in zip(sums, self._text_features([prompt for _, prompt in some]), strict=True):
                total.index_add_(0, numbers, vectors.cpu())  # on the CPU, where the order of a sum is fixed
        for heads in zip(*(torch.split(normalize(total, dim=-1), classes) for total in sums), strict=True):
            yield [head.to(self.device) for head in heads]

    def correct(self, dataset: Dataset, rows: RowNumbers, heads: Sequence[Tensor]) -> Tensor:
        """Whether images are nearest to their own class."""
        right = torch.zeros((len(self.clips), len(rows)), dtype=torch.uint8, device=self.device)
        labels_of = dataset.split("test").labels
        place = self._edges(len(rows))[self.rank]
        for some, pixels in self._images(dataset, rows):
            labels = to_device(torch.tensor(labels_of[some]), self.device)
            for number, (vectors, head) in enumerate(zip(self._image_features(pixels), heads, strict=True)):
                right[number, place : place + len(some)] = (vectors @ head.T).argmax(dim=1) == labels
            place += len(some)
        return right

    def retrieved(self, dataset: Dataset, rows: RowNumbers) -> Tensor:
        """Whether captions find their image, and images one of their captions: as `retrieval.recall_hits`."""
        captions = dataset.split("test").captions(rows)
        edges = self._edges(len(rows))
        sizes = [(stop - start, sum(map(len, captions[start:stop]))) for start, stop in pairwise(edges)]
        start, stop = edges[self.rank : self.rank + 2]
        texts = [text for some in captions[start:stop] for text in some]
        numbers = torch.arange(start, stop)
        of_texts = numbers.repeat_interleave(torch.tensor([len(some) for some in captions[start:stop]]))
        chunks = (texts[first : first + self.batch_size] for first in range(0, len(texts), self.batch_size))
        caption_vectors = self._concatenated(self._text_features(chunk) for chunk in chunks)
        image_vectors = self._concatenated(self._image_features(pixels) for _, pixels in self._images(dataset, rows))
        pairs = (
            Pairs(images, numbers.to(self.device), words, of_texts.to(self.device))
            for images, words in zip(image_vectors, caption_vectors, strict=True)
        )
        before = (sum(map(len, captions[:start])), sum(1 for some in captions[:start] if some))
        whole = (sum(map(len, captions)), sum(1 for some in captions if some))
        places = [(before[way], whole[way]) for way in range(len(DIRECTIONS)) for _ in CUTOFFS]
        return torch.stack([_placed(recall_hits(each, sizes, self.rank), places) for each in pairs])

    def keeps(self, dataset: Dataset) -> bool:
        """Whether the dataset's images are for the disk, since they are too large to be kept in memory."""
        return not fits_in_memory(len(dataset.split("test")), self._resizing.size)

    def blocks(self, dataset: Dataset, rows: RowNumbers) -> Iterator[ImageBlock]:
        """The rows of this worker's part, batch by batch; inner batches are the same for any number of workers."""
        start, stop = self._edges(len(rows))[self.rank : self.rank + 2]
        following = range(start - start % self.batch_size + self.batch_size, stop, self.batch_size)
        for first, last in pairwise((start, *following, stop)):
            if first < last:
                yield ImageBlock(dataset.card.digest, "test", self._resizing, rows[first:last])

    def _images(self, dataset: Dataset, rows: RowNumbers) -> Iterator[tuple[RowNumbers, Tensor]]:
        """The rows of this worker's part, batch by batch, with their images [B, size, size, 3] on the device."""
        images = Decoded(dataset.split("test"), self._resizing, threads=max(1, self.loaders))
        read = partial(self.cache.get, decode=images.block) if self.cache and self.keeps(dataset) else None
        blocks = (
            (block.rows, pinned(torch.from_numpy(read(block) if read else images.block(block.rows)), self.device))
            for block in self.blocks(dataset, rows)
        )
        for some, pixels in one_ahead(blocks) if self.loaders else blocks:
            self.on_batch()
            yield some, to_device(pixels, self.device)

    @property
    def _resizing(self) -> Resizing:
        return self.clips[0].preprocessing.resizing

    def _edges(self, count: int) -> list[int]:
        """Where each worker's part of so many rows starts, and where the last one's ends."""
        return [count * edge // self.workers for edge in range(self.workers + 1)]

    def _image_features(self, pixels: Tensor) -> list[Tensor]:
        """Each model's unit vectors of the images."""
        with self.arithmetic.forward():
            return self.halving.over(lambda some: [image_features(clip, some) for clip in self.clips], pixels)

    def _text_features(self, texts: Sequence[str]) -> list[Tensor]:
        """Each model's unit vectors of the texts."""
        tokens = self.clips[0].tokenize(texts)
        with self.arithmetic.forward():
            return self.halving.over(lambda some: [text_features(clip, some) for clip in self.clips], tokens)

    def _concatenated(self, batches: Iterable[list[Tensor]]) -> list[Tensor]:
        """Each model's vectors [N, D] of all batches, of which there may be none."""
        parts = [[torch.empty(0, self.width, device=self.device)] for _ in self.clips]
        for batch in batches:
            for mine, vectors in zip(parts, batch, strict=True):
                mine.append(vectors)
        return [torch.cat(mine) for mine in parts]


def _placed(parts: Sequence[Tensor], places: Sequence[tuple[int, int]]) -> Tensor:
    """The parts one after the other, each from its place on among as many as there are of all workers: uint8."""
    found = []
    for part, (start, length) in zip(parts, places, strict=True):
        found.append(part.new_zeros(length, dtype=torch.uint8))
        found[-1][start : start + len(part)] = part
    return torch.cat(found)
