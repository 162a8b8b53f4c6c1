"""The running mean of a model's weights over its training, where the expert is to be that."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from time_ray.core.within_average import WithinAverage

_MEAN = "mean/"  # beside the tensors of the optimiser


class Averaged:
    """The mean of the float32 weights after some of the steps, BatchNorm's running statistics among them.

    One more model beside the training's own; none where nothing is averaged.
    """

    def __init__(self, module: nn.Module, average: WithinAverage | None, *, steps: int) -> None:
        self._now = {name: tensor.detach() for name, tensor in module.state_dict().items()}  # they change in place
        self._average = average
        self._steps = steps
        self._mean: dict[str, Tensor] = {}

    def add(self, step: int) -> None:
        """The weights after that many steps count, if they are to."""
        share = None if self._average is None else self._average.share(step, self._steps)
        if share is None:
            return
        floats = {name: tensor for name, tensor in self._now.items() if tensor.is_floating_point()}
        if not self._mean:
            self._mean = {name: tensor.clone() for name, tensor in floats.items()}
        else:
            torch._foreach_lerp_(list(self._mean.values()), list(floats.values()), share)

    def weights(self) -> Mapping[str, Tensor]:
        """The mean so far, with the newest counters; without one the weights as they are: live tensors, not copies."""
        return {**self._now, **self._mean}

    def state(self) -> dict[str, Tensor]:
        """The mean so far, on the CPU."""
        return {f"{_MEAN}{name}": tensor.to("cpu") for name, tensor in self._mean.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The mean is what it was when this state was taken."""
        kept = {name: tensor for name, tensor in self._now.items() if f"{_MEAN}{name}" in state}
        self._mean = {name: state[f"{_MEAN}{name}"].to(now.device, copy=True) for name, now in kept.items()}
