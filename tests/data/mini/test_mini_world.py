import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest

from time_ray.core.experiment import Experiment
from time_ray.data import mini
from time_ray.data.dataset import Dataset
from time_ray.data.mini import pool2
from time_ray.data.mini.digits import digit_images
from time_ray.data.mini.draw.shapes import HELD_OUT
from time_ray.data.mini.pool import pool_sample
from time_ray.data.mini.pool2 import pool2_sample
from time_ray.data.mini.sample import Sample
from time_ray.data.mini.world import ADAPTATION, EVALUATION, WORLD, captions_of, samples, splits
from time_ray.store.files import Files
from time_ray.study import find_datasets

LEARNED_ELSEWHERE = ("digits_real", "clocks")  # number words are in the pool too


def digest() -> str:
    """A hash over the first pictures and captions of every dataset and of the pool."""
    found = hashlib.sha256()
    for name in (*mini.NAMES_ADAPTATION, *mini.NAMES_EVALUATION):
        for split in splits(name):
            for sample, _ in zip(samples(name, split), range(40), strict=False):
                found.update(sample.pixels.tobytes() + repr(sample[1:]).encode())
    for sample in map(pool_sample, range(100)):
        found.update(sample.pixels.tobytes() + repr(sample[1:]).encode())
    return found.hexdigest()


@cache
def said(draw: Callable[[int], Sample]) -> frozenset[str]:
    """The captions of a pool's first pictures."""
    return frozenset(caption for index in range(2000) for caption in draw(index).captions)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Dataset]:
    """A dataset of the world, drawn when it is first asked for."""
    folder = tmp_path_factory.mktemp("world")

    def draw(name: str) -> Dataset:
        mini.write(folder, [name])
        return Dataset.open(folder / name)

    return draw


@pytest.mark.nightly
def test_pictures_depend_on_nothing_but_their_index() -> None:
    here = Path(__file__)
    script = f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as t; print(t.digest())"
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {digest()}


def test_datasets_are_as_specified() -> None:
    assert len(ADAPTATION) == 11
    assert len(EVALUATION) == 9
    assert sum(len(entry.classes) for entry in ADAPTATION.values()) == 118
    assert sum(len(entry.classes) for entry in EVALUATION.values()) == 123


USUAL = ("digits_real", "flags", "shape_colour", "textures")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in USUAL else pytest.mark.nightly) for name in (*ADAPTATION, *EVALUATION)],
)
def test_every_class_has_enough_images(drawn: Callable[[str], Dataset], name: str) -> None:
    dataset = drawn(name)
    assert dataset.card.classes == WORLD[name].classes
    tests = np.bincount(dataset.split("test").labels, minlength=len(dataset.card.classes))
    assert set(dataset.card.splits) == set(splits(name))
    assert tests.min() >= 30
    if name in ADAPTATION:
        assert np.bincount(dataset.split("train").labels).tolist() == [40] * len(dataset.card.classes)


def test_captions_are_the_prompts_of_the_class(drawn: Callable[[str], Dataset]) -> None:
    dataset = drawn("flags")
    captions = dataset.split("train").captions([3])[0]
    assert captions == tuple(template.format("belgium") for template in dataset.card.templates)


def test_real_digits_are_never_tested_on_what_was_learned() -> None:
    seen = {pixels.tobytes() for pixels, _ in digit_images("train", 40)}
    assert not any(pixels.tobytes() in seen for pixels, _ in digit_images("test", 40))


def test_pool_knows_nothing_of_what_is_learned_later() -> None:
    words = {word for caption in said(pool_sample) for word in caption.split()}
    later = {word for name in set(ADAPTATION) - set(LEARNED_ELSEWHERE) for word in ADAPTATION[name].classes}
    assert not words & later


def test_pool_2_names_every_third_class_and_no_other() -> None:
    named_by = {caption for seed in range(1500) for caption in pool2.of_the_stream(Random(seed))[1]}
    prompts = {(name, c): captions_of(entry, c) for name, entry in ADAPTATION.items() for c in entry.classes}
    named = {place for place, texts in prompts.items() if not named_by.isdisjoint(texts)}
    assert named == pool2.NAMED
    assert 0.3 < len(named) / len(prompts) < 0.36


def test_a_fifth_of_pool_2_is_of_the_stream() -> None:
    of_the_stream = {text for seed in range(1500) for text in pool2.of_the_stream(Random(seed))[1]}
    assert 0.17 < sum(set(pool2_sample(index).captions) <= of_the_stream for index in range(1000)) / 1000 < 0.23


@pytest.mark.parametrize("draw", mini.POOLS.values(), ids=mini.POOLS)
def test_pools_never_show_the_held_out_pairs(draw: Callable[[int], Sample]) -> None:
    assert not [caption for caption in said(draw) for pair in HELD_OUT if pair in caption]


@pytest.mark.parametrize("draw", mini.POOLS.values(), ids=mini.POOLS)
def test_pools_are_pictures_with_three_captions(draw: Callable[[int], Sample]) -> None:
    pool = [draw(index) for index in range(200)]
    assert {len(set(sample.captions)) for sample in pool} == {3}
    assert {(sample.pixels.shape, sample.pixels.dtype, sample.label) for sample in pool} == {
        ((32, 32, 3), np.dtype(np.uint8), -1)
    }


def test_version_2_is_version_1_with_another_pool(tmp_path: Path) -> None:
    """So what is stored of version 1 keeps its names, and pictures of the stream are drawn once for both."""
    first, second = (_datasets(world, tmp_path) for world in ("mini", "mini2"))
    assert first == {
        **{name: f"mini:1:{name}" for name in (*ADAPTATION, *EVALUATION)},
        "pool": "mini:1:pool",
    }
    assert second == {name: key for name, key in first.items() if name != "pool"} | {"pool2": "mini:1:pool2"}


def _datasets(world: str, root: Path) -> dict[str, str]:
    spec = {"init": "zs", "deploy": "ft", "technique": "average", "model": "mini-tiny", "budget": "1 steps"}
    experiment = Experiment(name="x", data=world, mixture={"update": 0.5, "pretraining": 0.5}, **spec)
    return {source.name: source.key for source in find_datasets(experiment, Files(str(root))).all}


def test_writing_again_makes_only_what_is_missing(tmp_path: Path) -> None:
    mini.write(tmp_path, ("chess", "counting"))
    whole = Dataset.open(tmp_path / "counting").card
    digest_before = Dataset.open(tmp_path / "chess").card.digest
    (tmp_path / "chess" / "card.json").unlink()
    mini.write(tmp_path, ("chess", "counting"))
    assert Dataset.open(tmp_path / "chess").card.digest == digest_before
    assert Dataset.open(tmp_path / "counting").card == whole
