"""Small models to try techniques on: two towers, blocks, a 0-d, an empty and an integer tensor."""

import torch
from torch import Tensor

Weights = dict[str, Tensor]
SHAPES = {
    "visual.conv1.weight": (4, 3, 2, 2),
    "visual.transformer.resblocks.0.attn.in_proj_weight": (12, 4),
    "visual.transformer.resblocks.1.mlp.c_fc.weight": (7, 4),
    "visual.proj": (4, 5),
    "token_embedding.weight": (9, 4),
    "transformer.resblocks.0.ln_1.bias": (10,),
    "empty": (0, 3),
    "logit_scale": (),
}


def toy(seed: int, dtype: torch.dtype = torch.float32) -> Weights:
    """A model of every kind of tensor."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    return {**tensors, "position_ids": torch.arange(4)}


def moved(base: Weights, seed: int, by: float = 0.1) -> Weights:
    """The model after some training."""
    step = toy(seed)
    return {
        name: (value + by * step[name]).to(value.dtype) if value.is_floating_point() else value.clone()
        for name, value in base.items()
    }


def world(count: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Weights, list[Weights]]:
    """A base and some experts."""
    base = toy(0, dtype)
    return base, [moved(base, seed) for seed in range(1, count + 1)]


def same(left: Weights, right: Weights) -> bool:
    """Whether names, order, shapes, dtypes and all bits are equal."""
    return list(left) == list(right) and all(same_bits(left[name], right[name]) for name in left)


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether shapes, dtypes and all bits are equal."""
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return False
    return torch.equal(*(one.contiguous().view(-1).view(torch.uint8) for one in (left, right)))


def near(left: Weights, right: Weights, tolerance: float = 1e-6) -> bool:
    """Whether all values agree to a tolerance."""
    return all(torch.allclose(left[name].double(), right[name].double(), rtol=0, atol=tolerance) for name in left)
