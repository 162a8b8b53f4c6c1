"""Sums over whole tensors in float64, a block at a time so that the doubles stay in the cache."""

import math

import torch
from torch import Tensor

BLOCK = 1 << 16


def dot(left: Tensor, right: Tensor) -> float:
    """Σ left · right of two flat tensors; the same for any number of threads but for the last bit."""
    starts = range(0, left.numel(), BLOCK)
    return math.fsum(torch.dot(left[i : i + BLOCK].double(), right[i : i + BLOCK].double()).item() for i in starts)


def square(values: Tensor) -> float:
    """Σ values²."""
    return dot(values, values)


def norm(values: Tensor) -> float:
    """‖values‖."""
    return math.sqrt(square(values))
