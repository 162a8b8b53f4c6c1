"""Precision: what each computes in, what float16 loses, and what a device that lacks one is told."""

from collections.abc import Callable

import open_clip
import pytest
import torch
from test_train import given

from time_ray.clip import features
from time_ray.clip.arithmetic import Arithmetic
from time_ray.clip.compiled import bucket
from time_ray.clip.evaluate import outcomes
from time_ray.clip.loss import ContrastiveStep
from time_ray.clip.models import Clip, base_weights, create
from time_ray.clip.optimizer import Optimizer
from time_ray.clip.train import train
from time_ray.core.errors import CellError
from time_ray.core.model import ModelSpec
from time_ray.core.scoring import Scoring
from time_ray.core.training import Training
from time_ray.data.batch import Batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")
STEPS = 9


def pictures(steps: int, size: int, count: int = 8) -> list[Batch]:
    """Batches of blurred noise: neighbouring pixels are alike, as in pictures."""
    noise = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (steps, count, 3, 4, 4), generator=noise).float()
    large = torch.nn.functional.interpolate(small.flatten(0, 1), (size, size), mode="bilinear")
    images = large.round().to(torch.uint8).view(steps, count, 3, size, size)
    return [
        Batch(batch, [f"a photo of thing {step} {place}" for place in range(count)])
        for step, batch in enumerate(images)
    ]


def loop_of_time_ray(clip: Clip, config: Training, batches: list[Batch]) -> list[float]:
    module = clip.module.train()
    optimizer = Optimizer(module, config, steps=len(batches), device=CPU)
    step_of = ContrastiveStep(clip, config, device=CPU, accumulate=1, seed=0)
    scales = []
    for step, batch in enumerate(batches):
        step_of.backward(step, batch.images, batch.texts, optimizer.scaled)
        optimizer.step(step)
        scales.append(float(optimizer.state()["scaler/scale"]))
    return scales


def loop_of_open_clip(clip: Clip, config: Training, batches: list[Batch]) -> list[float]:
    """Autocast, gradient scaler, unscale, clip, step: as `open_clip_train.train.train_one_epoch`."""
    module, scaler = clip.module.train(), torch.amp.GradScaler("cpu")
    adamw = torch.optim.AdamW(module.parameters(), lr=config.lr or 0, weight_decay=config.weight_decay)
    scales = []
    for batch in batches:
        adamw.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = open_clip.ClipLoss()(*module(clip.pixels(batch.images), clip.tokenize(batch.texts)))
        scaler.scale(loss).backward()
        scaler.unscale_(adamw)
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm or 0)
        scaler.step(adamw)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


@pytest.mark.parametrize("model", ["mini-tiny", pytest.param("mini-base", marks=pytest.mark.nightly)])
def test_float16_loses_no_more_steps_than_the_loop_of_open_clip(model: str) -> None:
    spec = ModelSpec(name=model)
    clip, weights = create(spec), base_weights(spec)
    config = Training(lr=1e-5, precision="fp16", warmup=0, min_lr=1)
    batches = pictures(STEPS, clip.preprocessing.resizing.size)

    def final_scale(loop: Callable[[Clip, Training, list[Batch]], list[float]]) -> float:
        clip.load(weights)
        return loop(clip, config, batches)[-1]

    ours, theirs = final_scale(loop_of_time_ray), final_scale(loop_of_open_clip)
    assert ours >= theirs  # it is halved by every step that is lost
    assert ours >= 2**13


def test_evaluation_computes_in_the_precision_that_is_asked_for(
    clip: Clip, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[torch.dtype] = set()
    linear = features._linear

    def noted(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.add((out := linear(x, *rest)).dtype)
        return out

    monkeypatch.setattr(features, "_linear", noted)
    module = clip.load(weights).eval()
    images = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        seen.clear()
        with torch.inference_mode(), Arithmetic(precision, CPU).forward():
            vectors = features.image_features(clip, images)
        assert seen == {dtype}
        assert vectors.dtype == torch.float32
    assert module is clip.module


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", False), ("fp16", False)])
def test_on_a_gpu_float32_products_are_tf32_where_that_is_asked_for_and_never_by_torch_itself(
    monkeypatch: pytest.MonkeyPatch, precision: str, *, tf32: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with Arithmetic(precision, GPU).products():  # type: ignore[arg-type]
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (tf32, tf32)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


@pytest.mark.parametrize(
    ("precision", "device", "message"),
    [
        ("tf32", CPU, "training.precision: tf32 is not there on a CPU; set fp32"),
        ("tf32", GPU, "training.precision: tf32 is not there on Tesla T4; set fp32"),
        ("bf16", GPU, "training.precision: bf16 is not there on Tesla T4; set fp16, or fp32"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: torch.device, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(CellError) as refused:
        Arithmetic(precision, device)  # type: ignore[arg-type]
    assert str(refused.value) == message
    for there in ("fp32", "fp16"):
        Arithmetic(there, device)  # type: ignore[arg-type]


def test_evaluation_says_which_setting_to_change(clip: Clip, weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(CellError, match=r"evaluation\.precision: tf32 is not there on a CPU; set fp32"):
        outcomes(clip, [weights], [object()], scoring=Scoring(precision="tf32"))  # type: ignore[list-item]


@pytest.mark.parametrize(("accumulate", "recompute"), [(1, False), (2, True)])
def test_compiled_blocks_train_the_same_expert_up_to_rounding(
    clip: Clip, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, accumulate: int, *, recompute: bool
) -> None:
    graphs = []
    compile_with = torch.compile

    def traced(function: Callable[..., torch.Tensor], **how: bool) -> Callable[..., torch.Tensor]:
        def counted(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
            graphs.append(graph)
            return graph

        return compile_with(function, backend=counted, **how)

    monkeypatch.setattr(torch, "compile", traced)
    config, notes = Training(lr=1e-2, eps=1e-3, batch_size=8), list[str]()
    saving = {"accumulate": accumulate, "recompute": recompute}
    plain = train(clip, weights, given(4), config, steps=4, **saving)
    compiled = train(clip, weights, given(4), config, steps=4, compile_blocks=True, on_note=notes.append, **saving)
    assert notes == []
    assert 2 <= len(graphs) <= 8  # for all blocks of all steps: by tower, and by whether there are gradients
    assert max(float((plain[name] - compiled[name]).abs().max()) for name in plain) < 2e-6
    assert max(float((plain[name] - weights[name]).abs().max()) for name in plain) > 1e-3
    assert clip.compiled_block is None


def test_where_nothing_can_be_compiled_it_is_said_once_and_training_goes_on(
    spec: ModelSpec, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Callable[..., torch.Tensor]:
        def fail(*_: object, **__: object) -> torch.Tensor:
            msg = "no compiler\nis here"
            raise RuntimeError(msg)

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    clip, config, notes = create(spec), Training(lr=1e-2, batch_size=8), list[str]()
    train(clip, weights, given(2), config, steps=2, compile_blocks=True, on_note=notes.append)
    compiled = train(clip, weights, given(2), config, steps=2, compile_blocks=True, on_note=notes.append)
    assert notes == ["torch.compile failed, blocks run as they are: RuntimeError: no compiler"]
    plain = train(clip, weights, given(2), config, steps=2)
    assert all(torch.equal(plain[name], compiled[name]) for name in plain)


def test_texts_are_cut_to_few_lengths_where_each_is_compiled() -> None:
    assert [bucket(length, 77) for length in (1, 16, 17, 64, 65, 77)] == [16, 16, 32, 64, 77, 77]


@pytest.mark.nightly
def test_the_compiler_itself_agrees(clip: Clip, weights: dict[str, torch.Tensor]) -> None:
    config, notes = Training(lr=1e-2, eps=1e-3, batch_size=8), list[str]()
    plain = train(clip, weights, given(3), config, steps=3)
    compiled = train(clip, weights, given(3), config, steps=3, compile_blocks=True, on_note=notes.append)
    assert notes == []
    assert max(float((plain[name] - compiled[name]).abs().max()) for name in plain) < 2e-6
