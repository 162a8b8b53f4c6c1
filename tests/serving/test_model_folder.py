"""A model's folder: what is in it, that it is written whole or not at all, and its vocabulary for transformers."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn
from safetensors.torch import load_file
from tokenizers import Tokenizer

from time_ray import api
from time_ray.api import Opened
from time_ray.clip.mini import CONTEXT, MERGES_FILE
from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec
from time_ray.serving.hf_tokenizer import TEXT_CFG, tokenizer_files
from time_ray.serving.licence import licence_of
from time_ray.serving.model_folder import OURS, whole_folder

Make = Callable[..., Path]
WORDS = (
    *("a photo", "of the", "red square!", "star's", "don't", "I'LL", "they've", "12 345", "x1y2", "café naïve", "ß"),
    *("İstanbul", "ﬁ", "日本語", "😀", "&amp;", "&lt;b&gt;", "<start_of_text>", "<end_of_text>", "<pad> <PAD>", "\t"),
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABC0123456789!?.,'\"-_<>/&;:()[]{}éüñßøλжあ漢😀\u2009\u200d½²"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Opened:
    folder = tmp_path_factory.mktemp("swept")
    small = {"init": ["ft", "zs"], "deploy": "all", "technique": "average", "stream": {"tasks": 2}}
    opened = api.open_experiment(new_experiment(folder, **small))
    assert api.sweep(opened).exit_code == 0
    return opened


def test_an_exported_folder_says_all_of_the_model(swept: Opened, tmp_path: Path) -> None:
    said: list[str] = []
    weights = api.export(swept, "best", tmp_path / "best", say=said.append)
    winner = api.best(swept).winner
    assert said == [f"best: {winner.cell.name}"]
    assert {path.name for path in weights.parent.iterdir()} < OURS
    scores = json.loads((tmp_path / "best/scores.json").read_text())
    assert scores["scores"]["gm"] == winner.final["gm"]
    assert scores["accuracy"] == dict(winner.rows[-1].accuracy)
    assert scores["support"]["seeds"] == "1"
    classes = json.loads((tmp_path / "best/classes.json").read_text())
    chess, textures = swept.study.datasets.all
    assert classes["datasets"]["chess"] == {"classes": list(chess.classes), "templates": list(chess.templates)}
    assert classes["datasets"]["textures"]["templates"] == list(textures.templates)
    assert sorted(classes["taught"]) == sorted(["chess", name] for name in chess.classes)
    card = (tmp_path / "best/README.md").read_text()
    for part in ("license: apache-2.0", f"| GM | {winner.final['gm']:.2f} % |", "| chess |", "supports no ranking"):
        assert part in card


def test_a_folder_for_the_hub_has_weights_and_tokenizer_once_it_has_moved(swept: Opened, tmp_path: Path) -> None:
    written = api.export(swept, "init=zs", tmp_path / "here", "hf-folder")
    saved = load_file(written)
    (tmp_path / "here").rename(tmp_path / "there")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'there'}")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    names = {path.name for path in (tmp_path / "there").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "merges.LICENSE.txt"} < names
    assert not names & {"MLmodel", "code", "merges.txt.gz"}
    config = json.loads((tmp_path / "there/open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "tokenizer.json"
    assert str(tmp_path) not in json.dumps(config)


def test_every_text_has_the_tokens_that_open_clip_gives_it() -> None:
    files = tokenizer_files(MERGES_FILE, CONTEXT)
    theirs, named = Tokenizer.from_str(files["tokenizer.json"]), json.loads(files["tokenizer_config.json"])
    theirs.enable_truncation(named["model_max_length"])  # as transformers does
    theirs.enable_padding(length=CONTEXT, pad_id=theirs.token_to_id(named["pad_token"]), pad_token=named["pad_token"])
    ours, clean, chance = (
        SimpleTokenizer(str(MERGES_FILE), context_length=CONTEXT),
        get_clean_fn("lower"),
        random.Random(0),
    )
    assert TEXT_CFG["tokenizer_kwargs"] == {"clean": "lower"}
    for number in range(2000):
        some = " ".join(chance.choices(WORDS, k=8)) if number % 2 else "".join(chance.choices(LETTERS, k=number % 25))
        assert theirs.encode(clean(some)).ids == ours([some])[0].tolist(), some


def test_an_earlier_export_is_replaced_and_other_things_are_not(swept: Opened, tmp_path: Path) -> None:
    out = tmp_path / "out"
    api.export(swept, "init=zs", out, "hf-folder")
    api.export(swept, "init=ft", out)
    assert not (out / "tokenizer.json").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out: holds other things \(notes.txt\); give another folder with -o"):
        api.export(swept, "init=ft", out)
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match=r"x: cannot be written \(Not a directory\); give another folder with -o"):
        api.export(swept, "init=ft", out / "notes.txt" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_write_that_ends_halfway_leaves_what_was_there(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as draft:
        (draft / "README.md").write_text("first")

    def interrupted() -> None:
        with whole_folder(tmp_path / "out") as draft:
            (draft / "README.md").write_text("second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "README.md").read_text() == "first"


def test_a_folder_that_cannot_take_its_place_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "model").mkdir()
    (folder / "README.md").write_text("earlier")
    rename = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if Path(target) == folder and not self.name.endswith("-old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(UserError, match="Input/output error"), whole_folder(folder):
        pass
    assert (folder / "README.md").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [folder]


def test_best_without_its_weights_is_never_another_one_in_silence(
    swept: Opened, time_ray: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    shutil.copytree(swept.files.root, root, symlinks=True)
    storage = f"storage={root}"
    opened = api.open_experiment(swept.path, [storage])
    winner = api.best(opened).winner
    again = f"run: time-ray sweep {swept.path} {storage}"
    (root / str((winner.weights or {})["payload"])).unlink()
    done = time_ray("export", swept.path, storage, "-o", tmp_path / "best")
    assert (done.status, done.err) == (2, f"error: {winner.cell.name}: its weights are not there; {again}\n")
    (entry,) = (root / "weights").rglob(f"*{winner.final_key}*")
    shutil.rmtree(entry)
    done = time_ray("export", swept.path, storage, "-o", tmp_path / "best")
    assert f"1 cells are not finished and not ranked; {again}\n" in done.err
    assert winner.cell.name not in done.err


@pytest.mark.parametrize(
    ("weights", "name", "part"),
    [
        (None, "apache-2.0", "come with time_ray"),
        ("openai", "mit", "OpenAI's"),
        ("laion2b_s34b_b79k", "unknown", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("somewhere/mine.safetensors", "unknown", "see the source of the base weights, the file mine.safetensors"),
    ],
)
def test_the_licence_is_that_of_the_base_weights(weights: str | None, name: str, part: str) -> None:
    found = licence_of(ModelSpec(name="ViT-B-32" if weights else "mini-tiny", weights=weights))
    assert found.name == name
    assert part in found.note
