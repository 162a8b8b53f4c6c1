"""What the tests of merging share: the toy models of the package, and vectors."""

import math

import torch
from torch import Tensor

from time_ray.merging import TECHNIQUES
from time_ray.merging.toy_models import SHAPES, Weights, moved, near, same, toy, world

__all__ = [
    "RULES",
    "SHAPES",
    "Weights",
    "bits",
    "moved",
    "near",
    "same",
    "toy",
    "toy_clip",
    "vector",
    "with_batch_norm",
    "world",
]


RULES = {name: row for name, row in TECHNIQUES.items() if not row.needs_moments}
"""The techniques that merge weights alone."""


def with_batch_norm(model: Weights, seed: int) -> Weights:
    """The model with the buffers of a BatchNorm of four channels, which has seen `seed` batches."""
    mean, variance = vector(4, seed), vector(4, seed + 1).abs()
    counter = {"visual.bn1.num_batches_tracked": torch.tensor(seed)}
    return {**model, "visual.bn1.running_mean": mean, "visual.bn1.running_var": variance, **counter}


def vector(size: int, seed: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def toy_clip(seed: int) -> Weights:
    """The kinds of tensors of a CLIP model."""
    shapes = {
        "positional_embedding": (7, 4),
        "text_projection": (4, 5),
        "logit_scale": (),
        "visual.class_embedding": (6,),
        "visual.positional_embedding": (5, 6),
        "visual.proj": (6, 5),
        "visual.conv1.weight": (6, 3, 2, 2),
        "visual.transformer.resblocks.0.attn.in_proj_weight": (18, 6),
        "visual.transformer.resblocks.0.attn.out_proj.weight": (6, 6),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (24, 6),
        "token_embedding.weight": (11, 4),
        "transformer.resblocks.0.attn.in_proj_weight": (12, 4),
        "ln_final.weight": (4,),
    }
    return {
        name: vector(math.prod(shape), 100 * seed + i).view(shape) for i, (name, shape) in enumerate(shapes.items())
    }
