"""BatchNorm (arXiv:1502.03167) in training: statistics are of whole global batches, and a step counts once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from time_ray.clip.models import outline


@cache
def has_batch_norm(name: str) -> bool:
    """Whether an architecture keeps running statistics. Raises UserError as `models.outline` does."""
    return bool(layers(outline(name)))


def layers(module: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics; timm's are among them."""
    return [one for one in module.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]


@contextmanager
def synchronised(module: nn.Module) -> Iterator[None]:
    """Within, layers in training mode normalise by the global batch of all workers, and keep the statistics of that.

    As torch's SyncBatchNorm, which needs a GPU. One worker runs the layers as they are.
    """
    found = layers(module) if dist.is_initialized() and dist.get_world_size() > 1 else []
    for layer in found:
        layer.forward = partial(_over_workers, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in found:
            del layer.forward


@contextmanager
def unchanged(found: Sequence[_BatchNorm]) -> Iterator[None]:
    """What forward passes within do to the statistics of these layers is undone."""
    buffers = [buffer for layer in found for buffer in layer.buffers(recurse=False)]
    before = [buffer.clone() for buffer in buffers]
    yield
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)


def _over_workers(layer: _BatchNorm, x: Tensor) -> Tensor:
    """The layer's output for this worker's x [B, C, ...]; every worker's B is the same."""
    if not layer.training:
        return type(layer).forward(layer, x)
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    count = x.numel() // x.shape[1] * dist.get_world_size()
    mean: Tensor = _Sum.apply(x.float().sum(axes)) / count
    centred = x.float() - mean.view(shape)
    variance: Tensor = _Sum.apply(centred.square().sum(axes)) / count
    _keep(layer, mean.detach(), variance.detach() * (count / (count - 1)))
    out = centred * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        out = out * layer.weight.view(shape) + layer.bias.view(shape)
    return _after(layer, out.to(x.dtype))


def _keep(layer: Any, mean: Tensor, variance: Tensor) -> None:
    """The running statistics hold these of one more batch, as torch's own layers do it."""
    layer.num_batches_tracked.add_(1)
    share = 1 / layer.num_batches_tracked.item() if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance, share)


def _after(layer: Any, out: Tensor) -> Tensor:
    """What timm's BatchNormAct2d does after it has normalised; other layers do nothing."""
    for part in ("drop", "act"):
        if hasattr(layer, part):
            out = getattr(layer, part)(out)
    return out


class _Sum(torch.autograd.Function):
    """The sum over all workers; what each does with it has gradients for all of them."""

    @staticmethod
    def forward(_: Any, of_worker: Tensor) -> Tensor:
        total = of_worker.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total
