"""Momentum over merges: a running merge that also goes on the way it went before, as an outer optimiser does.

SNOO (https://arxiv.org/abs/2510.15830) and, with several workers, DiLoCo (https://arxiv.org/abs/2311.08105).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.pieces import STATISTICS


def with_momentum(
    merged: Mapping[str, Tensor], latest: Mapping[str, Tensor], since: Mapping[str, Tensor], momentum: float
) -> dict[str, Tensor]:
    """M + μ (latest - since): the merge, and a share of the way that was gone lately.

    With m_t = `pair(base, s_{t-1}, θ_t, "average", weight=η)` and s_0 = m_0 = θ_0 this is torch's SGD on slow weights s
    with the pseudo-gradient s_{t-1} - θ_t, learning rate η and momentum μ, without a buffer of its own: the way from
    s_{t-2} to s_{t-1} is heavy-ball momentum, the way from m_{t-1} to m_t is Nesterov's.

    Arithmetic is in float32, in float64 for such tensors. BatchNorm's running statistics are of data, and those of the
    merge; so is what is no floating-point tensor.

    Args:
        merged: tensors by name.
        latest: tensors of the same names and shapes, on the same device: where the way ends.
        since: likewise: where it begins.
        momentum: μ, from 0 to 1.

    Returns:
        New tensors in the dtypes of the merge.

    """
    return {name: _carried(name, tensor, latest[name], since[name], momentum) for name, tensor in merged.items()}


def _carried(name: str, merged: Tensor, latest: Tensor, since: Tensor, momentum: float) -> Tensor:
    if not merged.is_floating_point() or name.rpartition(".")[2] in STATISTICS:
        return merged.clone()
    precision = torch.promote_types(merged.dtype, torch.float32)
    way = latest.to(precision) - since.to(precision)
    return torch.add(merged.to(precision), way, alpha=momentum).to(merged.dtype)
