"""Features of images and texts, for inference.

open_clip's own vision and text transformers are run here by a leaner path with the same result up to rounding: the
last block is computed only where it is read (the class token, the end-of-text token), texts are cut to the longest
one, pixels are normalised by the patch embedding, and matrix products go to oneDNN, which on many CPUs is twice
as fast in float32 as the library that torch uses by default. Every other architecture is run as it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from time_ray.learn.models import Clip

HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


@torch.inference_mode()
def image_features(clip: Clip, images: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Unit vectors [B, D] of uint8 images [B, size, size, 3], by the weights that the module holds."""
    module: Any = clip.module
    if _has_plain_image_tower(module):
        features = _image_tower(clip, module.visual, images.to(device))
    else:
        features = module.encode_image(clip.pixels(images.permute(0, 3, 1, 2), device))
    return functional.normalize(features, dim=-1)


@torch.inference_mode()
def text_features(clip: Clip, tokens: Tensor, device: str | torch.device = "cpu") -> Tensor:
    """Unit vectors [B, D] of tokens [B, context length], by the weights that the module holds."""
    module: Any = clip.module
    tokens = tokens.to(device)
    features = _text_tower(module, tokens) if _has_plain_text_tower(module) else module.encode_text(tokens)
    return functional.normalize(features, dim=-1)


def _has_plain_image_tower(module: Any) -> bool:
    visual = module.visual
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and _are_plain(visual.transformer.resblocks)
    )


def _has_plain_text_tower(module: Any) -> bool:
    return (
        isinstance(module, CLIP)
        and module.text_pool_type == "argmax"
        and module.attn_mask is not None
        and isinstance(module.text_projection, Tensor)
        and _are_plain(module.transformer.resblocks)
    )


def _are_plain(blocks: Sequence[nn.Module]) -> bool:
    return all(type(block) is ResidualAttentionBlock for block in blocks)


def _image_tower(clip: Clip, visual: Any, images: Tensor) -> Tensor:
    count, height, width, _ = images.shape
    (high, wide), kernel = visual.patch_size, visual.conv1.weight
    patches = images.view(count, height // high, high, width // wide, wide * 3).transpose(2, 3)
    patches = patches.reshape(count, -1, high * wide * 3).to(kernel.dtype)
    mean, std = (255 * torch.tensor(stat, device=kernel.device).view(1, 3, 1, 1) for stat in (clip.mean, clip.std))
    scaled = kernel / std
    shift = -(scaled * mean).sum((1, 2, 3))
    tokens = _linear(patches, scaled.permute(0, 2, 3, 1).reshape(len(kernel), -1), shift)
    first = visual.class_embedding.expand(count, 1, -1)
    x = visual.ln_pre(torch.cat([first, tokens], dim=1) + visual.positional_embedding)
    read = torch.zeros(count, dtype=torch.long, device=x.device)
    x = _blocks(visual.transformer.resblocks, x, read, causal=False)
    features: Tensor = visual.ln_post(x) @ visual.proj
    return features


def _text_tower(module: Any, tokens: Tensor) -> Tensor:
    read = tokens.argmax(dim=-1)
    tokens = tokens[:, : int(read.max()) + 1]
    x = module.token_embedding(tokens) + module.positional_embedding[: tokens.shape[1]]
    x = _blocks(module.transformer.resblocks, x, read, causal=True)
    features: Tensor = module.ln_final(x) @ module.text_projection
    return features


def _blocks(blocks: Sequence[Any], x: Tensor, read: Tensor, *, causal: bool) -> Tensor:
    """The outcome [B, width] of all blocks at position `read` of each sequence x [B, L, width]."""
    for block in blocks[:-1]:
        y = block.ln_1(x)
        query, key, value = _heads(block.attn, y, 0, 3)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        x = _after_attention(block, x, attended.transpose(1, 2).reshape(y.shape))
    block = blocks[-1]
    y = block.ln_1(x)
    rows = torch.arange(len(x), device=x.device)
    (query,) = _heads(block.attn, y[rows, read].unsqueeze(1), 0, 1)
    key, value = _heads(block.attn, y, 1, 3)
    seen = torch.arange(x.shape[1], device=x.device) <= read[:, None, None, None] if causal else None
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return _after_attention(block, x[rows, read], attended.reshape(len(x), -1))


def _heads(attention: nn.MultiheadAttention, y: Tensor, first: int, stop: int) -> Tensor:
    """The projections `first` to `stop` of query, key and value, each [B, heads, L, width of a head]."""
    width = y.shape[-1]
    part = slice(first * width, stop * width)
    out = _linear(y, attention.in_proj_weight[part], attention.in_proj_bias[part])
    return out.view(*y.shape[:2], stop - first, attention.num_heads, -1).permute(2, 0, 3, 1, 4)


def _after_attention(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    x = x + block.ls_1(_linear(attended, block.attn.out_proj.weight, block.attn.out_proj.bias))
    y, up, down = block.ln_2(x), block.mlp.c_fc, block.mlp.c_proj
    if type(block.mlp.gelu) is nn.GELU and block.mlp.gelu.approximate == "none":
        hidden = _linear(y, up.weight, up.bias, gelu=True)
    else:
        hidden = block.mlp.gelu(_linear(y, up.weight, up.bias))
    out: Tensor = x + block.ls_2(_linear(hidden, down.weight, down.bias))
    return out


def _linear(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Tensor:
    if x.device.type == "cpu" and x.dtype == torch.float32 and HAS_ONEDNN:
        # Private, but what torch.compile itself calls for an nn.Linear on the CPU.
        pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        out: Tensor = pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else "")
        return out
    out = functional.linear(x, weight, bias)
    return functional.gelu(out) if gelu else out
