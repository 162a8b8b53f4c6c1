"""The small model with random weights, and datasets of random pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from pictures import CLASSES, SMALL
from torch import Tensor

from time_ray.clip import models
from time_ray.core.model import ModelSpec
from time_ray.data.dataset import Dataset, Row, write_dataset


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "test-small.json").write_text(json.dumps(SMALL))
    (folder / "test-quick.json").write_text(json.dumps({**SMALL, "quick_gelu": True}))
    (folder / "test-custom.json").write_text(json.dumps({**SMALL, "custom_text": True}))
    dropping = SMALL["vision_cfg"] | {"patch_dropout": 0.5}  # type: ignore[operator]
    (folder / "test-dropping.json").write_text(json.dumps(SMALL | {"vision_cfg": dropping}))
    open_clip.add_model_config(folder)
    return folder


@pytest.fixture(scope="session")
def spec(models_folder: Path) -> ModelSpec:
    return ModelSpec(name="test-small")


@pytest.fixture(scope="session")
def clip(spec: ModelSpec) -> models.Clip:
    return models.create(spec)


@pytest.fixture(scope="session")
def weights(clip: models.Clip) -> dict[str, Tensor]:
    """Random weights, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.1 * torch.randn(tensor.shape, generator=generator) + ("ln_" in name and name.endswith("weight"))
        for name, tensor in clip.module.state_dict().items()
    }


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    def make(name: str, train: list[Row], test: list[Row] | None = None, **options: object) -> Dataset:
        settings = {"classes": CLASSES, "templates": ("a {}.", "the {}."), "kind": "classification"} | options
        splits = {"train": train, "test": test or []}
        write_dataset(tmp_path / name, name=name, splits=splits, **settings)
        return Dataset.open(tmp_path / name)

    return make
