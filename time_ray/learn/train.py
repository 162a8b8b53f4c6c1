"""Training an expert: from given weights, on given batches, to new weights."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from time_ray.core.errors import CellError
from time_ray.core.training import Training
from time_ray.learn.features import image_features, text_features
from time_ray.learn.models import Clip


class Batch(NamedTuple):
    """Image-text pairs of one step, on the CPU: uint8 images [B, 3, H, W] and B texts."""

    images: Tensor
    texts: list[str]


def train(
    clip: Clip,
    weights: Mapping[str, Tensor],
    batches: Iterable[Batch],
    how: Training,
    *,
    steps: int,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, Tensor]:
    """The expert: the weights after `steps` steps of AdamW on the symmetric contrastive loss (CLIP, arXiv:2103.00020).

    The result is float32 on the CPU, with the names and order of `weights`, which are not changed. `how.lr` must be
    set. Under torch.distributed every worker passes its own slice of each global batch, features are gathered with
    their gradients, and all workers return the same weights. `on_step(step, loss)` counts from 1 and gets the loss
    of this worker's slice. Raises CellError, naming the step, once a loss is not finite.
    """
    module = clip.load(weights, device).train()
    for step, loss in _one_behind(_steps(clip, batches, how, steps=steps, device=device)):
        value = loss.item()
        if not math.isfinite(value):
            msg = f"step {step} of {steps}: the loss is {value}; lower training.lr"
            raise CellError(msg)
        if on_step is not None:
            on_step(step, value)
    return _result(module, weights, steps)


def rate_at(step: int, steps: int, how: Training) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Linear over the first ceil(warmup · steps) steps, then a cosine that reaches `min_lr` on the last one.
    """
    warm = math.ceil(how.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm + 1) / (steps - warm)
    return how.min_lr + (1 - how.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def _steps(
    clip: Clip, batches: Iterable[Batch], how: Training, *, steps: int, device: str | torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Do one optimisation step for each pair of step number and loss that is taken."""
    module = clip.module
    model: nn.Module = _Features(clip)
    if dist.is_initialized():
        model = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = _optimizer(module, how)
    peaks = [group["lr"] for group in optimizer.param_groups]
    contrastive = _contrastive_loss()
    for step, batch in zip(range(steps), batches, strict=False):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate_at(step, steps, how)
        tokens = clip.tokenize(batch.texts)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=how.precision == "bf16"):
            pictures, texts, scale = model(batch.images.to(device), tokens)
        loss = contrastive(pictures.float(), texts.float(), scale)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if how.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), how.clip_norm)
        optimizer.step()
        _cap_scale(module, how.max_logit_scale)
        yield step + 1, loss.detach()


class _Features(nn.Module):
    """Features of a batch and the temperature, as the one call that DistributedDataParallel watches."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.module: Any = clip.module
        self._clip = clip

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pictures = image_features(self._clip, images.permute(0, 2, 3, 1))
        return pictures, text_features(self._clip, tokens), self.module.logit_scale.exp()


def _one_behind(losses: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """The same pairs, each handed on after the next step was started: reading a loss never makes a GPU wait."""
    previous = next(losses, None)
    for following in losses:
        if previous is not None:
            yield previous
        previous = following
    if previous is not None:
        yield previous


def _optimizer(module: nn.Module, how: Training) -> torch.optim.Optimizer:
    """AdamW over four groups: the towers have their own rate, vectors their own weight decay."""
    if how.lr is None:
        msg = "training.lr is resolved before training"
        raise ValueError(msg)
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("visual."), how.decay == "all" or parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": how.lr * (how.image_lr_scale if is_image else 1),
            "weight_decay": how.weight_decay if decays else 0.0,
        }
        for (is_image, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, betas=(how.beta1, how.beta2), eps=how.eps, fused=True)


def _contrastive_loss() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """open_clip's loss over the global batch."""
    if not dist.is_initialized():
        loss: Callable[[Tensor, Tensor, Tensor], Tensor] = open_clip.ClipLoss()
    else:
        loss = open_clip.ClipLoss(
            local_loss=True, gather_with_grad=True, rank=dist.get_rank(), world_size=dist.get_world_size()
        )
    return loss


def _cap_scale(module: nn.Module, largest: float | None) -> None:
    if largest is not None:
        scale: Any = module.logit_scale
        with torch.no_grad():
            scale.clamp_(max=math.log(largest))


def _result(module: nn.Module, weights: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    state = module.state_dict()
    result = {name: state[name].detach().to("cpu", copy=True) for name in weights}
    broken = [name for name, tensor in result.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        msg = f"step {steps} of {steps}: {broken[0]} is not finite; lower training.lr"
        raise CellError(msg)
    return result
