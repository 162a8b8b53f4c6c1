import hashlib
import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file
from scores import evaluate

from time_ray.clip.mini import CONTEXT, MERGES_FILE, MODELS
from time_ray.clip.models import base_weights, create
from time_ray.clip.weights import open_clip_with_ours
from time_ray.core.model import ModelSpec
from time_ray.data import mini
from time_ray.data.dataset import Dataset
from time_ray.data.mini.pool import pool_sample
from time_ray.data.mini.world import WORLD, captions_of
from time_ray.tools.choose_lr import best_rate
from time_ray.tools.pretrain_mini import CONFIG, pretrain

# Percent; chance is 8 and 10. Far below what the shipped bases reach, far above what any mistake in loading leaves.
FLOORS = {"textures": 30, "scenes_blur": 60}


@pytest.fixture(scope="module")
def tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(bpe_path=str(MERGES_FILE), context_length=CONTEXT)


def test_world_words_split_as_in_clip(tokenizer: open_clip.SimpleTokenizer) -> None:
    full = open_clip.SimpleTokenizer()
    texts = {caption for index in range(2000) for caption in pool_sample(index).captions}
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


def test_shipped_files_are_small() -> None:
    assert sum(model.weights.stat().st_size for model in MODELS.values()) < 6e6


def test_larger_bases_know_more() -> None:
    cards = [json.loads(model.weights.with_suffix(".json").read_text()) for model in MODELS.values()]
    means = [card["zero_shot_mean_evaluation"] for card in cards]
    sizes = [card["parameters"] for card in cards]
    assert means == sorted(means)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", MODELS)
def test_bases_know_the_world(name: str, tmp_path: Path) -> None:
    mini.write(tmp_path, FLOORS)
    spec = ModelSpec(name=name)
    (scores,) = evaluate(create(spec), [base_weights(spec)], [Dataset.open(tmp_path / dataset) for dataset in FLOORS])
    assert all(scores[dataset] > floor for dataset, floor in FLOORS.items()), scores


def test_pretraining_is_repeatable(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"batch_size": 16})
    first, second = (
        pretrain("mini-tiny", config, steps=9, stop=3, num_pictures=64, seed=seed, folder=tmp_path) for seed in (0, 0)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    saved = load_file(tmp_path / "mini-tiny.safetensors")
    assert all(torch.equal(saved[key], tensor.half()) for key, tensor in first.items())


def test_one_rate_serves_both_image_scales() -> None:
    gm = {(3e-4, 1.0): 42.0, (3e-4, 0.3): 52.0, (6e-4, 1.0): 33.0, (6e-4, 0.3): 54.0}
    assert best_rate({setting: {"gm": value} for setting, value in gm.items()}) == 3e-4
