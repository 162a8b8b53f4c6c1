import math
import subprocess
import sys
from collections.abc import Callable, Iterator

import open_clip
import pytest
import torch
from torch import Tensor

from time_ray.clip.models import Clip
from time_ray.clip.optimizer import rate_at
from time_ray.clip.train import train
from time_ray.core.errors import CellError
from time_ray.core.training import Training
from time_ray.data.batch import Batch

Weights = dict[str, Tensor]


def made_batches(count: int, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator),
            [f"picture {step} {i}" for i in range(8)],
        )
        for step in range(count)
    ]


def given(count: int, seed: int = 0) -> Callable[[int], list[Batch]]:
    return lambda first: made_batches(count, seed)[first:]


def same(a: Weights, b: Weights) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_training_follows_a_plain_loop(clip: Clip, weights: Weights):
    config = Training(lr=1e-3, eps=1e-4)  # a usual eps would blow rounding up where a gradient is zero in theory
    report: list[tuple[int, float]] = []
    expert = train(clip, weights, given(6), config, steps=6, on_step=lambda *pair: report.append(pair))

    module = clip.load(weights).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, eps=1e-4, weight_decay=0.2, foreach=False)
    plain = []
    for step, batch in enumerate(made_batches(6)):
        optimizer.param_groups[0]["lr"] = 1e-3 * (
            1 if step == 0 else 0.001 + 0.999 * (1 + math.cos(math.pi * step / 5)) / 2
        )
        loss = open_clip.ClipLoss()(*module(clip.pixels(batch.images), clip.tokenize(batch.texts)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        plain.append(loss.item())
    assert [step for step, _ in report] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in report] == pytest.approx(plain, abs=1e-5)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(expert[name], tensor, atol=1e-5, rtol=1e-4)


def test_the_same_run_repeats_to_the_last_bit_and_inputs_stay(clip: Clip, weights: Weights):
    config = Training(lr=1e-3)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    first = train(clip, weights, given(4), config, steps=4)
    train(clip, first, given(2), config, steps=2)
    assert same(first, train(clip, weights, given(4), config, steps=4))
    assert not same(first, train(clip, weights, given(4, seed=1), config, steps=4))
    assert same(weights, before)
    assert list(first) == list(weights)


def test_the_rate_warms_up_and_ends_at_its_minimum():
    config = Training(warmup=0.1, min_lr=0.001)
    rates = [rate_at(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[-1] == pytest.approx(0.001)
    assert sorted(rates[9:], reverse=True) == rates[9:]
    assert rate_at(0, 1, config) == 1
    assert rate_at(0, 5, Training(warmup=0)) < 1


def test_whatever_makes_batches_is_stopped_at_the_end_and_by_a_fault(clip: Clip, weights: Weights):
    stopped: list[float] = []

    def stream(lr: float) -> Callable[[int], Iterator[Batch]]:
        def batches(first: int) -> Iterator[Batch]:
            try:
                yield from made_batches(9)[first:]
            finally:
                stopped.append(lr)

        return batches

    train(clip, weights, stream(1e-3), Training(lr=1e-3), steps=2)
    assert stopped == [1e-3]
    with pytest.raises(CellError) as caught:
        train(clip, weights, stream(1e39), Training(lr=1e39, clip_norm=None), steps=5)
    assert stopped == [1e-3, 1e39], caught  # though the error still holds all frames


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_loss_that_is_not_finite_names_its_step(clip: Clip, weights: Weights, step: int, monkeypatch):
    class Diverging(open_clip.ClipLoss):
        calls = 0

        def forward(self, *features: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(*features) * (math.nan if self.calls == step else 1)

    monkeypatch.setattr(open_clip, "ClipLoss", Diverging)
    with pytest.raises(CellError, match=f"step {step} of 4: the loss is nan"):
        train(clip, weights, given(4), Training(lr=1e-3), steps=4)


def test_weights_that_overflow_in_the_last_step_are_not_returned(clip: Clip, weights: Weights):
    with pytest.raises(CellError, match=r"step 1 of 1: .* is not finite"):
        train(clip, weights, given(1), Training(lr=1e39, clip_norm=None), steps=1)


def test_a_locked_image_tower_stays(clip: Clip, weights: Weights):
    expert = train(clip, weights, given(2), Training(lr=1e-2, image_lr_scale=0.0), steps=2)
    moved = {name for name in weights if not torch.equal(expert[name], weights[name])}
    assert moved
    assert not [name for name in moved if name.startswith("visual.")]


def test_decay_can_spare_vectors(clip: Clip, weights: Weights):
    heavy = Training(lr=1e-2, weight_decay=10.0)
    none = train(clip, weights, given(1), Training(lr=1e-2, weight_decay=0.0), steps=1)
    everywhere = train(clip, weights, given(1), heavy, steps=1)
    matrices = train(clip, weights, given(1), heavy.model_copy(update={"decay": "matrices"}), steps=1)
    for name, tensor in weights.items():
        assert torch.equal(matrices[name], none[name] if tensor.ndim < 2 else everywhere[name]), name
    assert not torch.equal(everywhere["ln_final.weight"], none["ln_final.weight"])


def test_the_temperature_can_be_capped(clip: Clip, weights: Weights):
    hot = weights | {"logit_scale": torch.tensor(math.log(500.0))}
    expert = train(clip, hot, given(1), Training(lr=1e-3, max_logit_scale=100.0), steps=1)
    assert expert["logit_scale"].exp().item() == pytest.approx(100)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near_float32(clip: Clip, weights: Weights, precision: str):
    exact, rough = [], []
    train(clip, weights, given(3), Training(lr=1e-3), steps=3, on_step=lambda _, loss: exact.append(loss))
    expert = train(
        clip,
        weights,
        given(3),
        Training(lr=1e-3, precision=precision),
        steps=3,
        on_step=lambda _, loss: rough.append(loss),
    )
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact
    assert {tensor.dtype for tensor in expert.values()} == {torch.float32}


@pytest.mark.nightly
def test_training_needs_no_ray_and_no_mlflow():
    heavy = "{'ray', 'mlflow', 'pyarrow', 'sklearn', 'matplotlib'}"
    code = f"import sys, time_ray.clip.train; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
