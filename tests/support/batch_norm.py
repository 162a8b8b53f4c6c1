"""Small models with BatchNorm, as RN50 and MobileCLIP have it, and batches for them; workers import this file, too."""

import json
from pathlib import Path

import open_clip
import torch
from pictures import SMALL
from torch import Tensor

from time_ray.clip.models import Clip, create
from time_ray.core.model import ModelSpec
from time_ray.data.batch import Batch

SIZE = 32
TEXT = SMALL["text_cfg"]
CONFIGS = {
    "test-resnet": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
        "text_cfg": TEXT,
    },
    "test-timm": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIZE, "timm_model_name": "test_efficientnet", "timm_pool": "avg"},
        "text_cfg": TEXT,
    },
}
STATISTICS = ("running_mean", "running_var")


def model(name: str, folder: Path) -> Clip:
    """One of the two; its configuration lies in the folder from then on."""
    (folder / f"{name}.json").write_text(json.dumps(CONFIGS[name]))
    open_clip.add_model_config(folder / f"{name}.json")
    return create(ModelSpec(name=name))


def start(clip: Clip) -> dict[str, Tensor]:
    """Weights by the architecture's own rule, the same in every run, with residual branches that are not shut."""
    torch.manual_seed(0)
    for module in clip.module.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    state = {name: tensor.clone() for name, tensor in clip.module.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith("bn3.weight"):
            tensor.fill_(0.5)
    return state


def pictures(count: int, size: int = 8, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randint(0, 256, (size, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
            [f"picture {step} {i}" for i in range(size)],
        )
        for step in range(count)
    ]


def buffers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """BatchNorm's, by name."""
    return {name: tensor for name, tensor in weights.items() if name.endswith((*STATISTICS, "num_batches_tracked"))}
