"""A training that goes on from a kept state ends with the bytes of one that was never disturbed."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from pictures import rows
from safetensors.torch import load_file, save_file
from test_train import Weights, given, made_batches, same
from torch import Tensor

from time_ray.clip.models import Clip, create
from time_ray.clip.train import train
from time_ray.core.errors import CellError
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.preprocessing import Resizing
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training
from time_ray.data.batch import Batch
from time_ray.data.batches import batches
from time_ray.data.dataset import Data, Dataset

STEPS = 6


class KilledError(Exception):
    pass


class Kept:
    """Keeps the state after each of the given steps in a file, and may die just after one of them."""

    def __init__(self, folder: Path, steps: tuple[int, ...] = (), *, dies_after: int | None = None) -> None:
        self.folder = folder
        self.steps = steps
        self.dies_after = dies_after
        self.asked: list[int] = []

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        kept = sorted(int(path.stem) for path in self.folder.glob("*.safetensors"))
        return (kept[-1], load_file(self.folder / f"{kept[-1]}.safetensors")) if kept else None

    def due(self, step: int) -> bool:
        self.asked.append(step)
        return step in self.steps

    def save(self, step: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        save_file(dict(state()), self.folder / f"{step}.safetensors")
        if step == self.dies_after:
            raise KilledError


def config(precision: str) -> Training:
    return Training(lr=1e-2, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("step", range(1, STEPS))
def test_interrupted_after_any_step(clip: Clip, weights: Weights, tmp_path: Path, step: int, precision: str):
    undisturbed = train(clip, weights, given(STEPS), config(precision), steps=STEPS)
    with pytest.raises(KilledError):
        train(
            clip,
            weights,
            given(STEPS),
            config(precision),
            steps=STEPS,
            checkpoints=Kept(tmp_path, (step,), dies_after=step),
        )
    taken: list[int] = []

    def rest(first: int) -> list[Batch]:
        taken.append(first)
        return made_batches(STEPS)[first:]

    heard: list[int] = []
    torch.rand(7)  # another process has another past
    resumed = train(
        clip,
        weights,
        rest,
        config(precision),
        steps=STEPS,
        checkpoints=Kept(tmp_path),
        on_step=lambda number, _: heard.append(number),
    )
    assert same(resumed, undisturbed)
    assert taken == [step]
    assert heard == list(range(step + 1, STEPS + 1))


def test_its_second_moments_are_those_of_an_undisturbed_training(clip: Clip, weights: Weights, tmp_path: Path):
    found: list[Weights] = []
    again = partial(train, clip, weights, given(STEPS), config("fp32"), steps=STEPS)
    again(on_end=found.append)
    with pytest.raises(KilledError):
        again(checkpoints=Kept(tmp_path, (3,), dies_after=3))
    again(on_end=found.append, checkpoints=Kept(tmp_path))
    assert same(*found)
    assert found[0].keys() == {name for name, tensor in weights.items() if tensor.is_floating_point()}


def test_interrupted_again_and_again(clip: Clip, weights: Weights, tmp_path: Path):
    undisturbed = train(clip, weights, given(STEPS), config("fp32"), steps=STEPS)
    for step in (1, 2, 5):
        with pytest.raises(KilledError):
            train(
                clip,
                weights,
                given(STEPS),
                config("fp32"),
                steps=STEPS,
                checkpoints=Kept(tmp_path, (step,), dies_after=step),
            )
    assert same(
        train(clip, weights, given(STEPS), config("fp32"), steps=STEPS, checkpoints=Kept(tmp_path)), undisturbed
    )


def test_keeping_changes_nothing_and_the_last_step_is_not_asked_about(clip: Clip, weights: Weights, tmp_path: Path):
    kept = Kept(tmp_path, tuple(range(1, STEPS)))
    result = train(clip, weights, given(STEPS), config("fp32"), steps=STEPS, checkpoints=kept)
    assert same(result, train(clip, weights, given(STEPS), config("fp32"), steps=STEPS))
    assert kept.asked == list(range(1, STEPS))


def test_a_state_that_cannot_go_on_is_not_kept(clip: Clip, weights: Weights, tmp_path: Path):
    nowhere = Training(lr=1e39, clip_norm=None, warmup=0)
    with pytest.raises(CellError, match="step 2 of 6: the loss is nan"):
        train(clip, weights, given(STEPS), nowhere, steps=STEPS, checkpoints=Kept(tmp_path, (2,)))
    assert not list(tmp_path.iterdir())


def test_a_model_that_drops_patches_goes_on_as_well(models_folder: Path, weights: Weights, tmp_path: Path):
    clip = create(ModelSpec(name="test-dropping"))
    undisturbed = train(clip, weights, given(STEPS), config("fp32"), steps=STEPS)
    with pytest.raises(KilledError):
        train(clip, weights, given(STEPS), config("fp32"), steps=STEPS, checkpoints=Kept(tmp_path, (3,), dies_after=3))
    torch.rand(7)
    before = torch.get_rng_state()
    assert same(
        train(clip, weights, given(STEPS), config("fp32"), steps=STEPS, checkpoints=Kept(tmp_path)), undisturbed
    )
    assert torch.equal(before, torch.get_rng_state())
    assert not same(train(clip, weights, given(STEPS), config("fp32"), steps=STEPS, seed=1), undisturbed)


@pytest.mark.parametrize("step", [1, 4])
def test_goes_on_within_the_data_of_a_task(
    clip: Clip, weights: Weights, make_dataset: Callable[..., Dataset], tmp_path: Path, step: int
):
    pets, pool = make_dataset("pets", rows(30)), make_dataset("pool", rows(30, 100))
    stream = partial(
        batches,
        Task(2, (Concept("pets", "cat"),)),
        (Task(1, (Concept("pets", "dog"), Concept("pets", "owl"))),),
        Data((pets,), (), pool),
        Mixture(pretraining=0.25, update=0.5, buffer=0.25, buffer_size=7),
        batch_size=8,
        steps=STEPS,
        resizing=Resizing(16),
        augment="crop",
        loaders=2,
    )
    kept = tmp_path / "kept"
    kept.mkdir()
    undisturbed = train(clip, weights, partial(stream, seed=0), config("fp32"), steps=STEPS)
    dying = Kept(kept, (step,), dies_after=step)
    with pytest.raises(KilledError):
        train(clip, weights, partial(stream, seed=0), config("fp32"), steps=STEPS, checkpoints=dying)
    resumed = train(clip, weights, partial(stream, seed=0), config("fp32"), steps=STEPS, checkpoints=Kept(kept))
    assert same(resumed, undisturbed)
    assert same(train(clip, weights, partial(stream, seed=0), config("fp32"), steps=STEPS), undisturbed)
    assert not same(train(clip, weights, partial(stream, seed=1), config("fp32"), steps=STEPS), undisturbed)
