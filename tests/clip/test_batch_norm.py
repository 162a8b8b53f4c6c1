"""BatchNorm in training: statistics of whole batches, once a step, whatever saves memory or shares the work."""

from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch
from batch_norm import STATISTICS, buffers, model, pictures, start
from test_train import same
from test_training_checkpoints import Kept, KilledError
from torch import Tensor, distributed
from torch.multiprocessing import spawn
from torch.optim.swa_utils import update_bn

from time_ray.clip.batch_norm import has_batch_norm, layers
from time_ray.clip.models import Clip
from time_ray.clip.reestimate import reestimated
from time_ray.clip.train import train
from time_ray.core.errors import CellError
from time_ray.core.training import Training
from time_ray.data.batch import Batch

CONFIG = Training(lr=1e-3, eps=1e-3, batch_size=8)
NAMES = ["test-resnet", "test-timm"]
STEPS = 3


def given(count: int = STEPS, size: int = 8) -> "partial[list[Batch]]":
    return partial(lambda first: pictures(count, size)[first:])


@pytest.fixture(params=NAMES)
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Clip:
    return model(request.param, tmp_path)


def test_training_counts_each_step_once(clip: Clip):
    before = start(clip)
    expert = train(clip, before, given(), CONFIG, steps=STEPS)
    module = clip.load(before).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, eps=1e-3, weight_decay=0.2)
    for rate, batch in zip((1e-3, 5e-4 * 1.001, 1e-6), pictures(STEPS), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        loss = open_clip.ClipLoss()(*module(clip.pixels(batch.images), clip.tokenize(batch.texts)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(expert[name], tensor, atol=2e-5, rtol=1e-4, msg=name)
    moved = [name for name in buffers(before) if not torch.equal(expert[name], before[name])]
    assert len(moved) == 3 * len(layers(clip.module))


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.nightly)])
def test_what_is_computed_again_is_not_counted_again(clip: Clip, precision: str):
    config = CONFIG.model_copy(update={"precision": precision})
    before = start(clip)
    plain = train(clip, before, given(), config, steps=STEPS)
    saving = train(clip, before, given(), config, steps=STEPS, recompute=True)
    assert {int(value) for name, value in saving.items() if name.endswith("num_batches_tracked")} == {STEPS}
    for name, tensor in plain.items():
        torch.testing.assert_close(saving[name], tensor, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("precision", "recompute"),
    [("fp16", False), ("fp32", True), pytest.param("fp32", False, marks=pytest.mark.nightly)],
)
def test_interrupted_it_goes_on_with_its_statistics(clip: Clip, tmp_path: Path, precision: str, *, recompute: bool):
    before, config = start(clip), CONFIG.model_copy(update={"precision": precision})
    training = partial(train, clip, before, given(4), config, steps=4, recompute=recompute)
    undisturbed = training()
    kept = tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(KilledError):
        training(checkpoints=Kept(kept, (2,), dies_after=2))
    train(clip, undisturbed, given(1), config, steps=1)  # another training leaves other statistics in the module
    assert same(training(checkpoints=Kept(kept)), undisturbed)


def as_worker(rank: int, world_size: int, folder: Path) -> None:
    """Train both models, and estimate statistics, as one of several workers; what comes out is saved."""
    torch.set_num_threads(1)
    share = 8 // world_size
    mine = slice(rank * share, (rank + 1) * share)

    def batches(first: int) -> list[Batch]:
        return [Batch(images[mine], texts[mine]) for images, texts in pictures(STEPS)[first:]]

    if world_size > 1:
        meeting = f"file://{folder}/start"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    experts = []
    for name in NAMES:
        clip = model(name, folder)
        before = torch.load(folder / f"{name}.pt")
        found = [train(clip, before, batches, CONFIG, steps=STEPS, recompute=again) for again in (False, True)]
        experts += [*found, reestimated(clip, found[0], batches(0))]
    torch.save(experts, folder / f"{world_size}-{rank}.pt")
    if world_size > 1:
        distributed.destroy_process_group()


@pytest.mark.nightly
def test_workers_agree_with_one(tmp_path: Path):
    for name in NAMES:
        torch.save(start(model(name, tmp_path)), tmp_path / f"{name}.pt")
    as_worker(0, 1, tmp_path)
    spawn(as_worker, (2, tmp_path), 2)
    alone = torch.load(tmp_path / "1-0.pt")
    first, second = (torch.load(tmp_path / f"2-{rank}.pt") for rank in range(2))
    for ours, theirs, one in zip(first, second, alone, strict=True):
        assert same(ours, theirs)  # statistics too: whichever worker stores them
        for key, tensor in one.items():
            torch.testing.assert_close(ours[key], tensor, atol=2e-5, rtol=1e-3, msg=key)


def test_estimated_statistics_are_those_of_torch(clip: Clip):
    weights, batches = start(clip), pictures(5)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    found = reestimated(clip, weights, batches)
    assert same(weights, before)
    assert same(reestimated(clip, weights, batches), found)
    clip.load(weights)
    update_bn([clip.pixels(batch.images) for batch in batches], clip.module.visual)  # type: ignore[arg-type]
    for name, tensor in clip.module.state_dict().items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5, msg=name)
    assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {5}
    assert all(torch.equal(found[name], weights[name]) for name in weights.keys() - buffers(weights).keys())


def test_estimating_leaves_the_module_as_it_was(clip: Clip):
    momenta = [layer.momentum for layer in layers(clip.module)]
    reestimated(clip, start(clip), pictures(1))
    assert [layer.momentum for layer in layers(clip.module)] == momenta
    assert not any(module.training for module in clip.module.modules())


def test_statistics_that_are_no_numbers_are_named(clip: Clip):
    weights = start(clip)
    first = next(name for name, tensor in weights.items() if name.startswith("visual.") and tensor.ndim == 4)
    weights[first] = torch.full_like(weights[first], 3e38)
    with pytest.raises(CellError, match=r"batch_norm\.statistics: visual\..*running_\w+ is not finite on data"):
        reestimated(clip, weights, pictures(1))


def test_who_has_batch_norm():
    assert [name for name in ("ViT-B-32", "RN50", "MobileCLIP-B", "convnext_base") if has_batch_norm(name)] == [
        "RN50",
        "MobileCLIP-B",
    ]


def test_both_models_have_what_the_large_ones_have(clip: Clip):
    names = {type(layer).__name__ for layer in layers(clip.module)}
    assert names == ({"BatchNorm2d"} if clip.name == "test-resnet" else {"BatchNormAct2d"})
    assert STATISTICS == ("running_mean", "running_var")


def test_evaluation_sees_the_statistics(clip: Clip):
    weights, batch = start(clip), pictures(1)[0]
    other: dict[str, Tensor] = {**weights, **{n: t + 1 for n, t in buffers(weights).items() if n.endswith("var")}}
    with torch.inference_mode():
        one, two = (
            clip.holding(held).module.encode_image(clip.pixels(batch.images))  # type: ignore[operator]
            for held in (weights, other)
        )
    assert not torch.allclose(one, two)
