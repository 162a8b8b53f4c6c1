"""Training an expert: from given weights, on given batches, to new weights."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Protocol

import torch
from torch import Tensor

from time_ray.clip.averaged import Averaged
from time_ray.clip.batch_norm import synchronised
from time_ray.clip.copied_ahead import copied_ahead
from time_ray.clip.features import compiling, recomputing
from time_ray.clip.loss import ContrastiveStep, own_random_numbers
from time_ray.clip.models import Clip
from time_ray.clip.optimizer import Optimizer
from time_ray.core.errors import CellError
from time_ray.core.training import Training
from time_ray.data.batch import Batch
from time_ray.data.prefetch import closed


class Checkpoints(Protocol):
    """Where a training is kept while it goes on. All workers ask the same questions and get the same answers."""

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """How many steps were done when the newest state was kept, and the state; None to start at the beginning."""

    def due(self, step: int) -> bool:
        """Whether the state after that many steps shall be kept. Asked after every step but the last."""

    def save(self, step: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """The state after that many steps is kept. Only who writes it asks for it, since that copies it from a GPU.

        Training changes these very tensors once this returns.
        """


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
    compile_blocks: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_end: Callable[[dict[str, Tensor]], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> dict[str, Tensor]:
    """The expert: the weights after `steps` steps of AdamW on the symmetric contrastive loss (CLIP, arXiv:2103.00020),
    or their mean over some of the steps.

    Under torch.distributed every worker passes its own slice of each global batch, features are gathered with their
    gradients, and all workers return the same weights.

    Running statistics of BatchNorm count each step once, over the whole global batch of all workers.

    Args:
        clip: the architecture and its tokenizer; its module is used as working memory.
        weights: where the training starts; they are not changed.
        batches: `batches(first)` are those of the steps from `first` on, which count from 0.
        config: learning rate, which must be set, schedule, precision and so on.
        steps: of the task.
        device: where it is trained.
        seed: of models that drop patches or paths.
        accumulate: micro-batches a step: less memory, more time, the same up to rounding; 1 with BatchNorm, whose
            statistics are of whole batches.
        recompute: keep no activations within blocks: less memory, more time, the same up to rounding.
        compile_blocks: run blocks as torch.compile makes them: fewer kernels a step, the same up to rounding. Where
            that fails they run as they are.
        on_step: hears step, from 1, and the loss of this worker's slice.
        on_note: hears what people should know, such as why nothing is compiled.
        on_end: gets AdamW's second moments at the end, see `Optimizer.second_moments`.
        checkpoints: where it is kept on the way. Going on from there ends, on the CPU, with the bits of an
            undisturbed training.

    Returns:
        Float32 tensors on the CPU, with the names and order of `weights`.

    Raises:
        CellError: naming the step, once a loss is not finite or float16 gradients overflow at every loss scale.

    """
    device = torch.device(device)
    module = clip.load(weights, device).train()
    optimizer = Optimizer(module, config, steps=steps, device=device)
    averaged = Averaged(module, config.average_within, steps=steps)
    first, state = (checkpoints and checkpoints.load()) or (0, None)
    if state is not None:
        optimizer.restore(state)
        averaged.restore(state)
    contrastive_step = ContrastiveStep(
        clip, config, device=device, accumulate=accumulate, recompute=recompute, seed=seed
    )
    losses = _Losses(steps, on_step)
    with (
        own_random_numbers(device),
        recomputing(module, enabled=recompute),
        synchronised(module),
        closed(batches(first)) as stream,
        ExitStack() as compiled,
    ):
        if compile_blocks:
            pairs = math.ceil(config.batch_size / (contrastive_step.workers * accumulate))
            say = on_note or (lambda _text: None)
            compiled.enter_context(compiling(clip, pairs=pairs, forward=contrastive_step.forward, say=say))
        for step, batch in zip(range(first, steps), copied_ahead(stream, device), strict=False):
            losses.add(step + 1, contrastive_step.backward(step, batch.images, batch.texts, optimizer.scaled))
            optimizer.step(step)
            averaged.add(step + 1)
            if checkpoints is not None and step + 1 < steps and checkpoints.due(step + 1):
                losses.read()
                checkpoints.save(step + 1, lambda: {**optimizer.state(), **averaged.state()})
    losses.read()
    if on_end is not None:
        on_end(optimizer.second_moments())
    return _result(averaged.weights(), weights, steps)


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


def _result(found: Mapping[str, Tensor], weights: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    result = {name: found[name].to("cpu", copy=True) for name in weights}
    broken = [name for name, tensor in result.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        msg = f"step {steps} of {steps}: {broken[0]} is not finite; lower training.lr"
        raise CellError(msg)
    return result
