"""The contrastive step: gradients of the symmetric loss over the global batch (CLIP, arXiv:2103.00020)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from time_ray.clip.arithmetic import Arithmetic
from time_ray.clip.batch_norm import layers, unchanged
from time_ray.clip.features import image_features, text_features, to_device
from time_ray.clip.models import Clip
from time_ray.core.precision import training_precision
from time_ray.core.training import Training
from time_ray.data.randomness import Randomness

Features = tuple[Tensor, Tensor, Tensor]  # of images and of texts [B, D], and the temperature, all float32


class ContrastiveStep:
    """Gradients of open_clip's loss, whole or in micro-batches that agree with the whole up to rounding.

    Under torch.distributed every worker passes its slice of the global batch; features are gathered with their
    gradients. Features are float32 before they meet, whatever the precision. A step's random numbers (of models that
    drop patches or paths) come from the seed and the step alone.
    """

    def __init__(
        self,
        clip: Clip,
        config: Training,
        *,
        device: torch.device,
        accumulate: int,
        seed: int,
        recompute: bool = False,
    ) -> None:
        self._clip = clip
        self._device = device
        self._arithmetic = Arithmetic(training_precision(config.precision, None), device)
        self._accumulate = accumulate
        self._features = _Features(clip)
        is_shared = dist.is_initialized()
        self._rank, self.workers = (dist.get_rank(), dist.get_world_size()) if is_shared else (0, 1)
        self.forward = self._arithmetic.forward
        self._model: nn.Module = self._features
        self._loss: Callable[..., Tensor] = open_clip.ClipLoss()
        if is_shared:
            self._model = DistributedDataParallel(self._features, broadcast_buffers=False, gradient_as_bucket_view=True)
            self._loss = open_clip.ClipLoss(
                local_loss=True, gather_with_grad=True, rank=self._rank, world_size=self.workers
            )
        self._seen_again = layers(clip.module) if recompute else []  # by the forward passes of a backward pass
        self._noise = Randomness(seed, 0, "noise")

    def backward(self, step: int, images: Tensor, texts: list[str], scaled: Callable[[Tensor], Tensor]) -> Tensor:
        """The loss; the gradients of `scaled` of it are in the parameters.

        Args:
            step: from 0: with the seed it decides what the model draws.
            images: uint8 [B, 3, H, W], this worker's slice of the global batch, on the device or on the CPU.
            texts: B captions.
            scaled: of the loss, what to go backward from (see Optimizer.scaled).

        Returns:
            A float32 scalar on the device.

        """
        tokens = self._clip.tokenize(texts)
        count = min(self._accumulate, len(texts))
        parts = list(zip(images.tensor_split(count), tokens.tensor_split(count), strict=True))
        seeds = self._noise.block(step, self.workers * count)[self._rank * count :].tolist()
        if count == 1:
            loss = self._loss(*self._run(self._model, *parts[0], seeds[0]))
            with unchanged(self._seen_again), self._arithmetic.products():
                torch.autograd.backward(scaled(loss))
            return loss.detach()
        # Gradient caching (arXiv:2101.06983): the loss of all features first, then each micro-batch again with a
        # graph, from the gradients of its own features on. One micro-batch's activations are in memory at a time.
        with torch.no_grad():
            found = [self._run(self._features, *part, seed) for part, seed in zip(parts, seeds, strict=False)]
        images_of, texts_of, scales = zip(*found, strict=True)
        features = (torch.cat(images_of).requires_grad_(), torch.cat(texts_of).requires_grad_())
        scale = scales[0].requires_grad_()
        loss = self._loss(*features, scale)
        *feature_grads, scale_grad = torch.autograd.grad(scaled(loss), (*features, scale))
        grads_of_parts = zip(*(grad.tensor_split(count) for grad in feature_grads), strict=True)
        for index, (part, grads) in enumerate(zip(parts, grads_of_parts, strict=True)):
            is_last = index == count - 1
            with nullcontext() if is_last else self._no_sync(), self._arithmetic.products():
                outputs = self._run(self._model, *part, seeds[index])
                torch.autograd.backward(outputs, (*grads, scale_grad if is_last else torch.zeros_like(scale_grad)))
        return loss.detach()

    def _run(self, model: nn.Module, images: Tensor, tokens: Tensor, seed: int) -> Features:
        torch.manual_seed(seed)
        with self._arithmetic.forward():
            found: Features = model(to_device(images, self._device), tokens)
        return found

    def _no_sync(self) -> AbstractContextManager[None]:
        """Gradients stay with this worker: only the last part's backward pass sums them over the workers."""
        return self._model.no_sync() if isinstance(self._model, DistributedDataParallel) else nullcontext()


class _Features(nn.Module):
    """Features of a batch and the temperature, as the one call that DistributedDataParallel watches."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.module: Any = clip.module
        self._clip = clip

    def forward(self, images: Tensor, tokens: Tensor) -> Features:
        of_images = image_features(self._clip, images.permute(0, 2, 3, 1))
        return of_images, text_features(self._clip, tokens), self.module.logit_scale.exp()


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """What is drawn within leaves torch's generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
