"""Sums over whole tensors in float64, a block at a time so that the doubles stay in the cache."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 16


def exact_sum(numbers: Iterable[float]) -> float:
    """The sum, whatever the order; Inf where one is too large for float64."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # the latter where there are both Inf and -Inf
        return math.inf


def dot(left: Tensor, right: Tensor) -> float:
    """Σ left · right of two flat tensors; the same for any number of threads but for the last bit."""
    starts = range(0, left.numel(), BLOCK)
    return exact_sum(torch.dot(left[i : i + BLOCK].double(), right[i : i + BLOCK].double()).item() for i in starts)


def square(values: Tensor) -> float:
    """Σ values²."""
    return dot(values, values)


def norm(values: Tensor) -> float:
    """‖values‖."""
    return math.sqrt(square(values))


def gram(vectors: Sequence[Tensor]) -> Tensor:
    """Σ left · right of all pairs of flat tensors, as float64 [N, N] in main memory."""
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors[0].device)
    for start in range(0, vectors[0].numel(), BLOCK):
        block = torch.stack([one[start : start + BLOCK] for one in vectors]).double()
        total.addmm_(block, block.mT)
    return total.cpu()


def combination(weights: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Σ weight · vector, a new tensor; those of weight 0 take no part, and weight 1 alone gives the vector's bits."""
    total: Tensor | None = None
    for weight, one in zip(weights, vectors, strict=True):
        if weight:
            total = one * weight if total is None else total.add_(one, alpha=weight)
    return torch.zeros_like(vectors[0]) if total is None else total
