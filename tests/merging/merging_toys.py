"""What the tests of merging share: the toy models of the package, and vectors."""

import torch
from torch import Tensor

from time_ray.merging.toy_models import SHAPES, Weights, moved, near, same, toy, world

__all__ = ["SHAPES", "Weights", "bits", "moved", "near", "same", "toy", "vector", "with_batch_norm", "world"]


def with_batch_norm(model: Weights, seed: int) -> Weights:
    """The model with the buffers of a BatchNorm of four channels, which has seen `seed` batches."""
    mean, variance = vector(4, seed), vector(4, seed + 1).abs()
    counter = {"visual.bn1.num_batches_tracked": torch.tensor(seed)}
    return {**model, "visual.bn1.running_mean": mean, "visual.bn1.running_var": variance, **counter}


def vector(size: int, seed: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()) if tensor.numel() else b""
