"""What the tests of merging share: the toy models of the package, and vectors."""

import torch
from torch import Tensor

from time_ray.merging.toy_models import SHAPES, Weights, moved, near, same, toy, world

__all__ = ["SHAPES", "Weights", "bits", "moved", "near", "same", "toy", "vector", "world"]


def vector(size: int, seed: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()) if tensor.numel() else b""
