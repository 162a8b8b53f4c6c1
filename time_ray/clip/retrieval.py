"""Retrieval: whether a caption finds its image and an image one of its captions, without a matrix of all pairs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from time_ray.core.outcomes import CUTOFFS

TIE = 1e-6  # cosines that differ by no more than float32 rounds are equal
QUERIES, CANDIDATES = 1024, 4096  # similarities in memory at a time


class Pairs(NamedTuple):
    """Unit vectors of images [N, D] and of their captions [M, D], and each one's number of the image."""

    images: Tensor
    image_numbers: Tensor
    captions: Tensor
    caption_numbers: Tensor


def recall_hits(own: Pairs, sizes: Sequence[tuple[int, int]], rank: int) -> list[Tensor]:
    """Whether this worker's queries find theirs among the images and captions of all workers: bool, one a query.

    Captions with their image among the first of each cutoff, then images with one of their captions among the first
    (see `core.outcomes.SIDES`). `sizes` are each worker's numbers of images and captions; an image's captions lie
    with it on one worker. An image counts by its best caption, and is not asked without one. Of equally similar
    candidates half go before the true one.
    """
    paired = own.caption_numbers - (own.image_numbers[0] if len(own.image_numbers) else 0)
    of_captions = (own.captions * own.images[paired]).sum(dim=1)
    least = torch.full((len(own.images),), -torch.inf, device=own.images.device, dtype=of_captions.dtype)
    of_images = least.scatter_reduce(0, paired, of_captions, "amax")
    asked = torch.bincount(paired, minlength=len(own.images)) > 0
    ranks = torch.zeros_like(own.caption_numbers), torch.zeros_like(own.image_numbers)
    for block in _blocks(own, sizes, rank):
        texts, images = (own.captions, own.caption_numbers), (own.images, own.image_numbers)
        ranks[0].add_(_before(*texts, of_captions, block.images, block.image_numbers))
        ranks[1].add_(_before(*images, of_images, block.captions, block.caption_numbers))
    asked_ranks = (ranks[0], ranks[1][asked])
    return [each < 2 * cutoff for each in asked_ranks for cutoff in CUTOFFS]


def _blocks(own: Pairs, sizes: Sequence[tuple[int, int]], rank: int) -> Iterator[Pairs]:
    """Each worker's pairs in turn, so that none holds more than its own and one other's."""
    if len(sizes) == 1:
        yield own
        return
    for source, (images, captions) in enumerate(sizes):
        block = own
        if source != rank:
            lengths = (images, images, captions, captions)
            block = Pairs(*(t.new_empty((n, *t.shape[1:])) for t, n in zip(own, lengths, strict=True)))
        for tensor in block:
            dist.broadcast(tensor, source)
        yield block


def _before(queries: Tensor, numbers: Tensor, truth: Tensor, candidates: Tensor, theirs: Tensor) -> Tensor:
    """For each query twice the candidates of other images that are more similar than its own, plus those as similar."""
    counts = torch.zeros_like(numbers)
    for first in range(0, len(queries), QUERIES):
        some = slice(first, first + QUERIES)
        true = truth[some, None]
        for start in range(0, len(candidates), CANDIDATES):
            part = slice(start, start + CANDIDATES)
            similar = queries[some] @ candidates[part].T
            strange = numbers[some, None] != theirs[part]
            # asked so that what is no number goes before everything: a broken model finds nothing
            ahead, level = ~(similar <= true + TIE), ~(similar < true - TIE)
            counts[some] += (ahead & strange).sum(dim=1) + (level & strange).sum(dim=1)
    return counts
