"""Patching: a model moved along the line through the base and itself, θ_0 + α (θ - θ_0), and how far it is from there.

WiSE-FT (https://arxiv.org/abs/2109.01903) and PAINT (https://arxiv.org/abs/2208.05592).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.pieces import STATISTICS
from time_ray.merging.reductions import square


def patch(base: Mapping[str, Tensor], weights: Mapping[str, Tensor], length: float) -> dict[str, Tensor]:
    """θ_0 + α (θ - θ_0), where α is the length: 0 gives the base, 1 the weights, more than 1 goes beyond them.

    Arithmetic is in float32, in float64 for such tensors. BatchNorm's running statistics are of data, and never
    extrapolated: beyond 1 they are those of the weights. What is no floating-point tensor is that of the weights.

    Args:
        base: tensors by name.
        weights: tensors of the same names and shapes, on the same device.
        length: α, at least 0.

    Returns:
        New tensors in the dtypes of the weights.

    """
    return {name: _moved(name, base[name], tensor, length) for name, tensor in weights.items()}


def _moved(name: str, base: Tensor, tensor: Tensor, length: float) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    share = min(length, 1.0) if _is_statistic(name) else length
    precision = torch.promote_types(tensor.dtype, torch.float32)
    return torch.lerp(base.to(precision), tensor.to(precision), share).to(tensor.dtype)


def distance(base: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> float:
    """||θ - θ_0||_2 / ||θ_0||_2 over all floating-point tensors but BatchNorm's running statistics.

    Squares are summed in float64.
    """
    moved = whole = 0.0
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not _is_statistic(name):
            origin = base[name].flatten()
            moved += square(tensor.flatten().to(torch.promote_types(origin.dtype, torch.float32)) - origin)
            whole += square(origin)
    return math.sqrt(moved / whole) if whole else 0.0


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in STATISTICS
