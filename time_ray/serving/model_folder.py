"""A model's folder: open_clip loads it, and predictor.py in it predicts; written whole, or not at all."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from time_ray.clip.preprocessing import CONFIG, open_clip_config
from time_ray.core.errors import UserError, some_of
from time_ray.core.model import ModelSpec
from time_ray.serving.hf_tokenizer import TEXT_CFG, tokenizer_files
from time_ray.serving.layout import Layout
from time_ray.serving.model_card import hub_metadata, model_card
from time_ray.serving.served import Served
from time_ray.whole_files import replacing_folder

WEIGHTS = "open_clip_model.safetensors"  # what open_clip looks for first
CARD, CLASSES, RECIPE, SCORES = "README.md", "classes.json", "recipe.json", "scores.json"
VOCABULARY, NOTICE = "merges.txt.gz", "merges.LICENSE.txt"
CODE = "code"
OURS = frozenset(
    (
        *(WEIGHTS, CONFIG, CARD, CLASSES, RECIPE, SCORES, VOCABULARY, NOTICE, CODE),
        *("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"),  # MLflow's
        *("input_example.json", "serving_input_example.json"),
        *("tokenizer.json", "tokenizer_config.json"),  # of transformers
    )
)


def describe(served: Served, folder: Path, layout: Layout = "open_clip", *, home: Path | None = None) -> None:
    """The folder holds all but the weights; what makes open_clip take it for a model is written last.

    Args:
        served: the model.
        folder: it is there.
        layout: whether a vocabulary of the model's own is there as open_clip or as transformers has them.
        home: where the folder will lie, if on this machine: open_clip wants the absolute path of a vocabulary.

    """
    config = open_clip_config(served.model)
    text_cfg = config["model_cfg"]["text_cfg"]
    own = own_vocabulary(served.model)
    if own is not None:
        if (notice := own.with_name(NOTICE)).exists():
            shutil.copyfile(notice, folder / NOTICE)
        if layout == "open_clip":
            shutil.copyfile(own, folder / VOCABULARY)
            text_cfg["tokenizer_kwargs"]["bpe_path"] = str(Path(home or "", VOCABULARY))
        else:
            for name, text in tokenizer_files(own, text_cfg["context_length"]).items():
                (folder / name).write_text(text, encoding="utf-8")
            text_cfg |= TEXT_CFG
    for name, text in {
        CARD: hub_metadata(served) + model_card(served, layout, own_vocabulary=own is not None),
        RECIPE: served.recipe,
        SCORES: _json(served.scores),
        CLASSES: _json(served.classes),
        CONFIG: _json(config),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


def own_vocabulary(spec: ModelSpec) -> Path | None:
    """The file of a model's own vocabulary; None if it has CLIP's, which open_clip knows."""
    path = open_clip_config(spec)["model_cfg"]["text_cfg"].get("tokenizer_kwargs", {}).get("bpe_path")
    return None if path is None else Path(path)


@cache
def predictor_code() -> tuple[str, bytes]:
    """The name of the module that predicts, which no other version of it shares in a process, and its text."""
    code = Path(__file__).with_name("predictor.py").read_bytes()
    return f"clip_predictor_{hashlib.sha256(code).hexdigest()[:8]}", code


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, beside the one that is wanted: it takes its place at the end of the block.

    What lies there may be an earlier model's folder, or an empty one.

    Raises:
        UserError: there are other things, or it cannot be written.

    """
    try:
        there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        if others := [name for name in there if name not in OURS]:
            raise UserError(f"{folder}: holds other things ({some_of(others)}); give another folder with -o")
        with replacing_folder(folder) as draft:
            yield draft
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UserError(f"{folder}: cannot be written ({why}); give another folder with -o") from error


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
