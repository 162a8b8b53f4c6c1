"""Steps that save memory agree with the plain step, and really keep less."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import open_clip
import pytest
import torch
from test_train import Weights, given, made_batches, same
from torch import Tensor, nn

from time_ray.clip import optimizer
from time_ray.clip.features import recomputing
from time_ray.clip.loss import ContrastiveStep
from time_ray.clip.models import Clip, create
from time_ray.clip.train import train
from time_ray.core.errors import CellError
from time_ray.core.model import ModelSpec
from time_ray.core.training import Training

CONFIG = Training(lr=1e-2, eps=1e-3)  # a usual eps would blow rounding up where a gradient is zero in theory
CPU = torch.device("cpu")


def difference(a: Weights, b: Weights) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("name", ["test-small", "test-custom"])  # by our path, and by open_clip's own
@pytest.mark.parametrize(("accumulate", "recompute"), [(1, True), (3, False), (3, True), (100, False)])
def test_saving_memory_agrees_with_the_plain_step(
    models_folder: object, weights: Weights, name: str, accumulate: int, *, recompute: bool
):
    clip = create(ModelSpec(name=name))
    start = weights if name == "test-small" else {key: t.clone() for key, t in clip.module.state_dict().items()}
    plain_losses: list[float] = []
    losses: list[float] = []
    plain = train(clip, start, given(4), CONFIG, steps=4, on_step=lambda _, loss: plain_losses.append(loss))
    saving = train(
        clip,
        start,
        given(4),
        CONFIG,
        steps=4,
        accumulate=accumulate,
        recompute=recompute,
        on_step=lambda _, loss: losses.append(loss),
    )
    assert difference(plain, start) > 1e-3
    assert difference(plain, saving) < 2e-6
    assert losses == pytest.approx(plain_losses, abs=2e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_saving_memory_agrees_in_half_precision(clip: Clip, weights: Weights, precision: Literal["bf16", "fp16"]):
    config = CONFIG.model_copy(update={"precision": precision})
    plain = train(clip, weights, given(4), config, steps=4)
    saving = train(clip, weights, given(4), config, steps=4, accumulate=2, recompute=True)
    assert difference(plain, weights) > 1e-3
    assert difference(plain, saving) < 0.1 * difference(plain, weights)


def test_a_part_drops_the_same_patches_in_both_passes(models_folder: object, weights: Weights):
    clip = create(ModelSpec(name="test-dropping"))
    clip.load(weights).train()
    contrastive_step = ContrastiveStep(clip, CONFIG, device=CPU, accumulate=2, seed=0)
    seen: list[Tensor] = []
    after_image_tower: Any = clip.module.visual.ln_post
    handle = after_image_tower.register_forward_hook(lambda _, __, outcome: seen.append(outcome.detach()))
    contrastive_step.backward(0, *made_batches(1)[0], lambda loss: loss)
    contrastive_step.backward(1, *made_batches(1)[0], lambda loss: loss)
    handle.remove()
    first, second, first_again, second_again, *later = seen
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    assert not torch.equal(first, later[0])


class Activations:
    """Bytes that live in memory for a backward pass, weights aside: now and at most."""

    now = most = 0


@contextmanager
def counted(module: nn.Module) -> Iterator[Activations]:
    count = Activations()
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            self.size = 0 if tensor.untyped_storage().data_ptr() in weights else tensor.nbytes
            count.now += self.size
            count.most = max(count.most, count.now)

        def __del__(self) -> None:
            count.now -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        yield count


@pytest.mark.parametrize(("accumulate", "recompute"), [(4, False), (1, True)])
def test_less_is_kept_for_the_backward_pass(clip: Clip, weights: Weights, accumulate: int, *, recompute: bool):
    def most(parts: int, *, again: bool) -> int:
        module = clip.load(weights).train()
        contrastive_step = ContrastiveStep(clip, CONFIG, device=CPU, accumulate=parts, seed=0)
        with counted(module) as activations, recomputing(module, enabled=again):
            contrastive_step.backward(0, *made_batches(1)[0], lambda loss: loss)
        module.zero_grad()
        return activations.most

    assert most(accumulate, again=recompute) < 0.35 * most(1, again=False)


def test_a_step_that_overflows_float16_changes_nothing_and_the_next_ones_do(clip: Clip, weights: Weights):
    steep = weights | {"logit_scale": torch.tensor(5.0)}  # gradients that overflow, times the first loss scales
    config = Training(lr=1e-2, precision="fp16")
    losses: list[float] = []
    skipped = train(clip, steep, given(2), config, steps=2, on_step=lambda _, loss: losses.append(loss))
    assert same(skipped, steep)
    assert len(losses) == 2
    assert all(0 < loss < 500 for loss in losses)
    assert not same(train(clip, steep, given(6), config, steps=6), steep)


def test_float16_that_overflows_at_every_loss_scale_stops_the_cell(clip: Clip, weights: Weights, monkeypatch):
    class Steep(open_clip.ClipLoss):
        def forward(self, *features: Tensor) -> Tensor:
            return super().forward(*features) + (features[0].sum() * 0).sqrt()  # no slope there, and a finite value

    monkeypatch.setattr(open_clip, "ClipLoss", Steep)
    monkeypatch.setattr(optimizer, "SCALE_CHECK_STEPS", 34)
    config = Training(lr=1e-3, precision="fp16")
    with pytest.raises(CellError, match="step 34 of 40: float16 gradients overflow at every loss scale"):
        train(clip, weights, given(40), config, steps=40)
