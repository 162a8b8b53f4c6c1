import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file
from scores import evaluate

from time_ray.clip.mini import CONTEXT, MERGES_FILE, MODELS
from time_ray.clip.models import base_weights, create
from time_ray.clip.weights import open_clip_with_ours, weights_digest
from time_ray.core.model import ModelSpec
from time_ray.data import mini
from time_ray.data.dataset import Dataset
from time_ray.data.mini.world import WORLD, captions_of
from time_ray.tools.choose_lr import best_rate
from time_ray.tools.pretrain_mini import CONFIG, pretrain, render

# Percent; chance is 8 and 10. Far below what the shipped bases reach, far above what any mistake in loading leaves.
FLOORS = {"textures": 30, "scenes_blur": 60}
WORLDS = {world: [name for name in MODELS if name.startswith(f"{world}-")] for world in ("mini", "mini2")}


def card_of(name: str) -> dict[str, Any]:
    return json.loads(MODELS[name].weights.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(bpe_path=str(MERGES_FILE), context_length=CONTEXT)


def test_world_words_split_as_in_clip(tokenizer: open_clip.SimpleTokenizer) -> None:
    full = open_clip.SimpleTokenizer()
    texts = {caption for draw in mini.POOLS.values() for index in range(2000) for caption in draw(index).captions}
    texts |= {text for entry in WORLD.values() for name in entry.classes for text in captions_of(entry, name)}
    for text in texts:
        pieces = [tokenizer.decoder[token] for token in tokenizer.encode(text)]
        assert pieces == [full.decoder[token] for token in full.encode(text)]
        assert len(pieces) + 2 <= CONTEXT


@pytest.mark.parametrize("text", ["", "a photo of a Chihuahua", "héron cendré", "猫", "🙂" * 40])
def test_any_text_has_tokens(tokenizer: open_clip.SimpleTokenizer, text: str) -> None:
    (row,) = tokenizer([text])
    assert row.shape == (CONTEXT,)
    assert row.max() == tokenizer.eot_token_id == tokenizer.vocab_size - 1


@pytest.mark.parametrize("name", MODELS)
def test_open_clip_loads_the_shipped_file(name: str) -> None:
    open_clip_with_ours()
    module, _, transform = open_clip.create_model_and_transforms(name, pretrained=str(MODELS[name].weights))
    shipped = load_file(MODELS[name].weights)
    assert {tensor.dtype for tensor in shipped.values()} == {torch.float16}
    assert all(torch.equal(tensor, shipped[key].float()) for key, tensor in module.state_dict().items())
    assert open_clip.get_tokenizer(name).vocab_size == module.vocab_size
    assert transform is not None


@pytest.mark.parametrize("name", MODELS)
def test_card_is_of_the_shipped_file(name: str) -> None:
    path = MODELS[name].weights
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["world_version"] == mini.VERSION
    assert card["parameters"] == sum(tensor.numel() for tensor in load_file(path).values())


def test_bases_of_version_1_are_those_that_results_are_named_by() -> None:
    digests = {name: weights_digest(ModelSpec(name=name)) for name in WORLDS["mini"]}
    assert digests == {
        "mini-tiny": "9df1da90446f1dc3f9b595fa0672c382dfba788a42b153efc691265034817db3",
        "mini-base": "7adac9f58c040a71c437a174ab34e243064874fb5b9256e0dfd261a020194b36",
        "mini-large": "65c440ba6ff3a4208561e395055e899d23f26e8de7c0b2a565b08b1f2a791b92",
    }


@pytest.mark.parametrize("world", WORLDS)
def test_shipped_files_are_small(world: str) -> None:
    assert sum(MODELS[name].weights.stat().st_size for name in WORLDS[world]) < 6e6


@pytest.mark.parametrize("world", WORLDS)
def test_larger_bases_know_more(world: str) -> None:
    cards = [card_of(name) for name in WORLDS[world]]
    means = [card["zero_shot_mean_evaluation"] for card in cards]
    sizes = [card["parameters"] for card in cards]
    assert means == sorted(means)
    assert sizes == sorted(sizes)


def test_bases_of_version_2_know_part_of_the_stream() -> None:
    """Fixed before they were made: KA of 30 to 45 % of ZS, and more of it the larger the base is."""
    cards = [card_of(name) for name in WORLDS["mini2"]]
    known = [card["zero_shot_mean_adaptation"] for card in cards]
    shares = [card["zero_shot_mean_adaptation"] / card["zero_shot_mean_evaluation"] for card in cards]
    assert known == sorted(known)
    assert all(0.30 <= share <= 0.45 for share in shares), shares


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mini2-tiny" else pytest.mark.nightly) for name in MODELS]
)
def test_what_a_card_says_of_scores_is_so(name: str, tmp_path: Path) -> None:
    mini.write(tmp_path, ["chess"])
    spec = ModelSpec(name=name)
    (found,) = evaluate(create(spec), [base_weights(spec)], [Dataset.open(tmp_path / "chess")])
    assert found == pytest.approx({"chess": card_of(name)["zero_shot"]["chess"]}, abs=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    mini.write(folder, FLOORS)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_bases_know_the_world(name: str, world: Path) -> None:
    spec = ModelSpec(name=name)
    (scores,) = evaluate(create(spec), [base_weights(spec)], [Dataset.open(world / dataset) for dataset in FLOORS])
    assert all(scores[dataset] > floor for dataset, floor in FLOORS.items()), scores


def test_pretraining_is_repeatable(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"batch_size": 16})
    pictures = render("pool2", 64)
    first, second = (
        pretrain("mini-tiny", pictures, config, steps=9, stop=3, seed=seed, folder=tmp_path, device="cpu")
        for seed in (0, 0)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    saved = load_file(tmp_path / "mini-tiny.safetensors")
    assert all(torch.equal(saved[key], tensor.half()) for key, tensor in first.items())


@pytest.mark.nightly
def test_pictures_are_the_same_whoever_renders_them() -> None:
    alone, shared = (render("pool2", 2500, workers) for workers in (1, 2))
    assert np.array_equal(alone.pixels, shared.pixels)
    assert alone.captions == shared.captions


def test_one_rate_serves_both_image_scales() -> None:
    gm = {(3e-4, 1.0): 42.0, (3e-4, 0.3): 52.0, (6e-4, 1.0): 33.0, (6e-4, 0.3): 54.0}
    assert best_rate({setting: {"gm": value} for setting, value in gm.items()}) == 3e-4
