"""A cell's final weights as files that open_clip loads by itself."""

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from time_ray.analysis.final_weights import final_weights
from time_ray.clip.mini import MODELS
from time_ray.clip.preprocessing import CONFIG, open_clip_config
from time_ray.core.errors import UserError
from time_ray.core.selection import read_selection
from time_ray.opened import Opened
from time_ray.results import CellResult

VOCABULARY_NOTICE = "merges.LICENSE.txt"  # wherever the vocabulary goes, it goes


def export_cell(opened: Opened, result: CellResult, folder: Path, length: float = 1.0) -> Path:
    """The folder holds the cell's weights at that length, their recipe, and the architecture with its preprocessing.

    Returns:
        The safetensors file.

    Raises:
        UserError: the cell's weights are not in the store, or not whole; or that length needs data.

    """
    found = final_weights(result, opened.store, length, again=f"time-ray sweep {opened.words}")
    folder.mkdir(parents=True, exist_ok=True)
    name = result.cell.setting.model.name
    (folder / "recipe.json").write_text(
        json.dumps({**result.cell.axes, "length": length, **found.about}, indent=1), encoding="utf-8"
    )
    config = open_clip_config(result.cell.setting.model)
    if name in MODELS:
        config["model_cfg"] |= _export_architecture(name, folder / "configs")
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    weights = folder / f"{name}.safetensors"
    weights.write_bytes(found.data)
    return weights


def _export_architecture(name: str, configs: Path) -> dict[str, Any]:
    """A mini model's architecture and vocabulary go along: open_clip does not know them by itself.

    open_clip wants the vocabulary's absolute path, so after a move `bpe_path` in the configuration must follow.
    """
    configs.mkdir(exist_ok=True)
    config = copy.deepcopy(MODELS[name].config)
    tokenizer = config["text_cfg"]["tokenizer_kwargs"]
    vocabulary = Path(tokenizer["bpe_path"])
    shutil.copyfile(vocabulary, configs / vocabulary.name)
    shutil.copyfile(vocabulary.with_name(VOCABULARY_NOTICE), configs / VOCABULARY_NOTICE)
    tokenizer["bpe_path"] = str((configs / vocabulary.name).absolute())
    (configs / f"{name}.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return config


def pick_cell(results: Sequence[CellResult], wanted: str) -> CellResult:
    """The one finished cell that `init=ema,deploy=ema,technique=ties` singles out.

    Raises:
        UserError: an axis is unknown, or not exactly one finished cell matches.

    """
    done = [result for result in results if result.done]
    found = read_selection(wanted, "--cell").of(done, lambda result: result.cell.axes)
    if len(found) == 1:
        return found[0]
    names = "; ".join(result.cell.name for result in found[:4])
    raise UserError(
        f"--cell {wanted}: {len(found)} finished cells match{': ' + names if found else ''}; name more axes"
    )
