"""The optimiser of a task: AdamW with its schedule, gradient clipping and, for float16, a loss scale."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from time_ray.core.errors import CellError
from time_ray.core.training import Training
from time_ray.merging.fisher import second_moments

SMALLEST_LOSS_SCALE = 2.0**-16
SCALE_CHECK_STEPS = 50  # reading the loss scale makes a GPU wait


class Optimizer:
    """AdamW (arXiv:1711.05101) on float32 weights, over the steps of one task.

    With float16 the loss is scaled, so that small gradients do not vanish. A step whose scaled gradients overflow
    changes no weight and halves the scale; it counts as a step of the schedule and of the budget all the same.
    """

    def __init__(self, module: nn.Module, config: Training, *, steps: int, device: torch.device) -> None:
        self._module = module
        self._config = config
        self._steps = steps
        self._adamw = torch.optim.AdamW(
            _groups(module, config), betas=(config.beta1, config.beta2), eps=config.eps, fused=True
        )
        self._peaks = [group["lr"] for group in self._adamw.param_groups]
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._adamw.zero_grad()

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to go backward from."""
        return self._scaler.scale(loss)

    def step(self, step: int) -> None:
        """The weights are changed by their gradients, which are gone. Steps count from 0.

        Raises CellError, naming the step, if gradients overflow at every loss scale.
        """
        for group, peak in zip(self._adamw.param_groups, self._peaks, strict=True):
            group["lr"] = peak * rate_at(step, self._steps, self._config)
        if self._config.clip_norm is not None:
            self._scaler.unscale_(self._adamw)
            nn.utils.clip_grad_norm_(self._module.parameters(), self._config.clip_norm)
        self._scaler.step(self._adamw)
        self._scaler.update()
        self._adamw.zero_grad()
        _cap_scale(self._module, self._config.max_logit_scale)
        if self._scaler.is_enabled() and (step + 1) % SCALE_CHECK_STEPS == 0:
            self._check_loss_scale(step)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, weights included, on the CPU: there live tensors, not copies."""
        state = {f"weights/{name}": tensor.detach() for name, tensor in self._module.state_dict().items()}
        for name, parameter in self._module.named_parameters():
            moments = self._adamw.state.get(parameter, {})
            state |= {f"adamw/{what}/{name}": tensor for what, tensor in moments.items()}
        state = {name: tensor.to("cpu") for name, tensor in state.items()}
        if self._scaler.is_enabled():
            found = self._scaler.state_dict()
            state |= {f"scaler/{what}": torch.tensor(found[what], dtype=torch.float64) for what in _SCALER}
        return state

    def second_moments(self) -> dict[str, Tensor]:
        """What AdamW has found of the squares of gradients, on the CPU, by the names of weights."""
        return second_moments(self._module, self._adamw)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The next step is the one that followed when this state was taken."""
        self._module.load_state_dict(_under("weights/", state))
        parameters = dict(self._module.named_parameters())
        for path, tensor in _under("adamw/", state).items():
            what, _, name = path.partition("/")
            self._adamw.state[parameters[name]][what] = tensor.to(parameters[name].device, copy=True)
        if self._scaler.is_enabled():
            held = {what: _SCALER[what](value.item()) for what, value in _under("scaler/", state).items()}
            self._scaler.load_state_dict(self._scaler.state_dict() | held)

    def _check_loss_scale(self, step: int) -> None:
        if self._scaler.get_scale() < SMALLEST_LOSS_SCALE:
            msg = f"step {step + 1} of {self._steps}: float16 gradients overflow at every loss scale"
            msg += "; lower training.lr, or set training.precision to bf16 or fp32"
            raise CellError(msg)


_SCALER: Mapping[str, Any] = {"scale": float, "_growth_tracker": int}  # what changes in a GradScaler's state


def rate_at(step: int, steps: int, config: Training) -> float:
    """The share of the peak learning rate at a step, counted from 0.

    Linear over the first ceil(warmup · steps) steps, then a cosine that reaches `min_lr` on the last one.
    """
    warm = math.ceil(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm + 1) / (steps - warm)
    return config.min_lr + (1 - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def _groups(module: nn.Module, config: Training) -> list[dict[str, Any]]:
    """Up to four groups: the towers have their own rate, vectors their own weight decay."""
    if config.lr is None:
        msg = "training.lr is resolved before training"
        raise ValueError(msg)
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("visual."), config.decay == "all" or parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * (config.image_lr_scale if is_image else 1),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (is_image, decays), parameters in groups.items()
    ]


def _cap_scale(module: nn.Module, largest: float | None) -> None:
    if largest is not None:
        scale: Any = module.logit_scale
        with torch.no_grad():
            scale.clamp_(max=math.log(largest))


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
