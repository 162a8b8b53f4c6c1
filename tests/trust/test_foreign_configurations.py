"""Configurations of strangers replace no architecture, and run no code: neither planted ones nor those of a model."""

import json
from pathlib import Path

import pytest
from torch import Tensor

from time_ray.clip import architectures
from time_ray.clip.architectures import ARCHITECTURES, Architecture, register
from time_ray.clip.mini import MODELS
from time_ray.clip.preprocessing import CONFIG, open_clip_config
from time_ray.clip.weights import open_clip_with_ours
from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec
from time_ray.serving import predictor
from time_ray.serving.predictor import Predictor

PLANTED = {"embed_dim": 1, "vision_cfg": {}, "text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}


def test_no_configuration_is_read_from_folders_that_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(architectures, "ARCHITECTURES", {**ARCHITECTURES, "ours": Architecture("ours", PLANTED)})
    open_clip = open_clip_with_ours()
    assert set(MODELS) | {"ours"} <= set(open_clip.list_models())
    assert open_clip.get_model_config("mini-tiny") == MODELS["mini-tiny"].config
    assert list(tmp_path.iterdir()) == []
    assert [str(path) for path in open_clip.factory._MODEL_CONFIG_PATHS if str(path).startswith(str(tmp_path))] == []


@pytest.mark.parametrize("setting", ["trust_remote_code", "tokenizer_type", "tokenizer_class", "anything"])
def test_an_architecture_from_outside_names_no_code(setting: str) -> None:
    text_cfg = {"tokenizer_kwargs": {"clean": "lower", setting: True}}
    with pytest.raises(UserError) as refused:
        register(Architecture("ours", {"embed_dim": 1, "vision_cfg": {}, "text_cfg": text_cfg}))
    assert refused.value.faults == (
        f"model 'ours': tokenizer_kwargs: {setting} is refused, as it may run foreign code; leave it out",
    )
    assert "ours" not in ARCHITECTURES


@pytest.mark.parametrize("where", ["tokenizer_kwargs", "hf_model_name", "tokenizer_config.json"])
def test_the_model_of_a_folder_names_no_code(
    tmp_path: Path, spec: ModelSpec, weights: dict[str, Tensor], where: str
) -> None:
    config = open_clip_config(spec)
    if where == "tokenizer_kwargs":
        config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    elif where == "hf_model_name":
        config["model_cfg"]["text_cfg"] |= {"hf_model_name": "a/b"}
    else:
        (tmp_path / where).write_text(json.dumps({"auto_map": {"AutoTokenizer": "mine.Mine"}}))
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="may run foreign code; the model is not loaded"):
        Predictor(tmp_path)


def test_both_know_the_same_settings() -> None:
    assert predictor.TOKENIZER_SETTINGS == architectures.TOKENIZER_SETTINGS
