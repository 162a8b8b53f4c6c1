"""Training an expert: from given weights, on given batches, to new weights."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from time_ray.clip.features import recomputing
from time_ray.clip.loss import ContrastiveStep, own_random_numbers
from time_ray.clip.models import Clip
from time_ray.clip.optimizer import Optimizer
from time_ray.core.errors import CellError
from time_ray.core.training import Training
from time_ray.data.batch import Batch


class Checkpoints(Protocol):
    """Where a training is kept while it goes on. All workers ask the same questions and get the same answers."""

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """How many steps were done when the newest state was kept, and the state; None to start at the beginning."""

    def due(self, step: int) -> bool:
        """Whether the state after that many steps shall be kept. Asked after every step but the last."""

    def save(self, step: int, state: Mapping[str, Tensor]) -> None:
        """The state after that many steps is kept. Training changes these very tensors once this returns."""


def train(
    clip: Clip,
    weights: Mapping[str, Tensor],
    batches: Callable[[int], Iterable[Batch]],
    config: Training,
    *,
    steps: int,
    device: str | torch.device = "cpu",
    seed: int = 0,
    accumulate: int = 1,
    recompute: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Tensor]:
    """The expert: the weights after `steps` steps of AdamW on the symmetric contrastive loss (CLIP, arXiv:2103.00020).

    `batches(first)` are those of the steps from `first` on, which count from 0. The result is float32 on the CPU,
    with the names and order of `weights`, which are not changed. `config.lr` must be set. Under torch.distributed every
    worker passes its own slice of each global batch, features are gathered with their gradients, and all workers
    return the same weights. `on_step(step, loss)` counts from 1 and gets the loss of this worker's slice.

    `accumulate` micro-batches a step and `recompute`, which keeps no activations within blocks, save memory for time;
    they agree with the plain step up to rounding. A training that goes on from the state in `checkpoints` ends, on the
    CPU, with the same bits as an undisturbed one. Raises CellError, naming the step, once a loss is not finite.
    """
    device = torch.device(device)
    module = clip.load(weights, device).train()
    optimizer = Optimizer(module, config, steps=steps, device=device)
    first, state = (checkpoints and checkpoints.load()) or (0, None)
    if state is not None:
        optimizer.restore(state)
    contrastive_step = ContrastiveStep(clip, config, device=device, accumulate=accumulate, seed=seed)
    losses = _Losses(steps, on_step)
    with own_random_numbers(device), recomputing(module, enabled=recompute), _closed(batches(first)) as stream:
        for step, batch in zip(range(first, steps), stream, strict=False):
            losses.add(step + 1, contrastive_step.backward(step, batch.images, batch.texts, optimizer.scaled))
            optimizer.step(step)
            if checkpoints is not None and step + 1 < steps and checkpoints.due(step + 1):
                losses.read()
                checkpoints.save(step + 1, optimizer.state())
    losses.read()
    return _result(module, weights, steps)


@contextmanager
def _closed(batches: Iterable[Batch]) -> Iterator[Iterable[Batch]]:
    """Whatever makes batches ahead has stopped afterwards."""
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()


class _Losses:
    """Losses, each read after the next step was started, so that a GPU never waits for the reading."""

    def __init__(self, steps: int, on_step: Callable[[int, float], None] | None) -> None:
        self._steps = steps
        self._on_step = on_step
        self._unread: tuple[int, Callable[[], float]] | None = None

    def add(self, step: int, loss: Tensor) -> None:
        """A step was started, so the one before it can be read."""
        self.read()
        self._unread = step, _reader(loss)

    def read(self) -> None:
        """No loss is left unread. Raises CellError for one that is not finite."""
        if self._unread is None:
            return
        step, reader = self._unread
        self._unread = None
        value = reader()
        if not math.isfinite(value):
            msg = f"step {step} of {self._steps}: the loss is {value}; lower training.lr"
            raise CellError(msg)
        if self._on_step is not None:
            self._on_step(step, value)


def _reader(loss: Tensor) -> Callable[[], float]:
    """Gives the loss; from a GPU once it is there, without waiting for what the GPU was told to do later."""
    if loss.device.type != "cuda":
        return loss.item
    copy, copied = loss.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def read() -> float:
        copied.synchronize()
        return copy.item()

    return read


def _result(module: nn.Module, weights: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    state = module.state_dict()
    result = {name: state[name].detach().to("cpu", copy=True) for name in weights}
    broken = [name for name, tensor in result.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        msg = f"step {steps} of {steps}: {broken[0]} is not finite; lower training.lr"
        raise CellError(msg)
    return result
