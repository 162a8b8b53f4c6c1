"""Features of images and texts, for training and for inference.

open_clip's own vision and text transformers are run here by a leaner path with the same result up to rounding: the
last block is computed only where it is read (the class token, the end-of-text token), texts are cut to the longest
one, pixels are normalised by the patch embedding, and on the CPU matrix products go to oneDNN, which on many
machines is twice as fast in float32 as the library that torch uses by default. Other architectures run as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from time_ray.clip.compiled import bucket, compiled
from time_ray.clip.models import Clip

UNIT = 256  # of pixels: dividing by it loses no bit, and with pixels up to 255 float16 gradients of a kernel overflow
HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def image_features(clip: Clip, images: Tensor) -> Tensor:
    """Float32 unit vectors [B, D] of uint8 images [B, size, size, 3] on the module's device, by its weights."""
    module: Any = clip.module
    if _has_plain_image_tower(module):
        features = _image_tower(clip, module.visual, images)
    else:
        features = module.encode_image(clip.pixels(images.permute(0, 3, 1, 2)))
    return functional.normalize(features.float(), dim=-1)


def text_features(clip: Clip, tokens: Tensor) -> Tensor:
    """Float32 unit vectors [B, D] of tokens [B, context length] on the CPU, by the weights that the module holds."""
    module: Any = clip.module
    if _has_plain_text_tower(module):
        features = _text_tower(clip, module, tokens)
    else:
        features = module.encode_text(to_device(tokens, module.logit_scale.device))
    return functional.normalize(features.float(), dim=-1)


@contextmanager
def compiling(clip: Clip, *, pairs: int, forward: Callable[[], Any], say: Callable[[str], None]) -> Iterator[None]:
    """Within, features of so many pairs come from blocks as torch.compile makes them; else it is said why not, once.

    Both towers compile one function, whatever their number of blocks. `forward` gives what forward passes run within.
    """
    if not clip.compiles:
        yield
        return
    module: Any = clip.module
    towers = []
    if _has_plain_image_tower(module):
        length, width = module.visual.positional_embedding.shape
        towers.append((module.visual.transformer.resblocks[0], length, width, False))
    if _has_plain_text_tower(module):
        length, width = module.positional_embedding.shape
        towers.append((module.transformer.resblocks[0], length, width, True))
    block, why_not = compiled(_block, towers, pairs=pairs, forward=forward)
    if not towers:
        why_not = f"run.compile: {clip.name} is not built of plain transformer blocks; it runs as it is"
    if why_not:
        clip.compiles = False
        say(why_not)
    clip.compiled_block = None if why_not else block
    try:
        yield
    finally:
        clip.compiled_block = None


@contextmanager
def recomputing(module: Any, *, enabled: bool) -> Iterator[None]:
    """Within, the backward pass computes the activations inside blocks again instead of keeping them, if enabled."""
    if enabled:
        module.set_grad_checkpointing(True)
    try:
        yield
    finally:
        if enabled:
            module.set_grad_checkpointing(False)


def _has_plain_image_tower(module: Any) -> bool:
    visual = module.visual
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and isinstance(visual.patch_dropout, nn.Identity)
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
    patches = images.reshape(count, height // high, high, width // wide, wide * 3).transpose(2, 3)
    patches = patches.reshape(count, -1, high * wide * 3).to(kernel.dtype).div_(UNIT)
    mean, std = (_per_channel(stat, kernel.device) for stat in (clip.preprocessing.mean, clip.preprocessing.std))
    scaled = kernel / std
    shift = -(scaled * mean).sum((1, 2, 3))
    tokens = _linear(patches, scaled.permute(0, 2, 3, 1).reshape(len(kernel), -1), shift)
    first = visual.class_embedding.expand(count, 1, -1)
    x = visual.ln_pre(torch.cat([first, tokens], dim=1) + visual.positional_embedding)
    read = torch.zeros(count, dtype=torch.long, device=x.device)
    x = _blocks(clip, visual.transformer, x, read, causal=False)
    features: Tensor = visual.ln_post(x) @ visual.proj
    return features


@cache
def _per_channel(stat: tuple[float, ...], device: torch.device) -> Tensor:
    """A statistic of pixels in units of 256 [1, 3, 1, 1]. Made once: a copy to a GPU would wait for all its work."""
    with torch.inference_mode(mode=False):  # training will use what evaluation made
        return 255 * torch.tensor(stat, device=device).view(1, 3, 1, 1) / UNIT


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. A GPU takes it when it comes to it: nobody waits."""
    return tensor if tensor.device.type == device.type else pinned(tensor, device).to(device, non_blocking=True)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the CPU, where the device can take it from without anybody waiting."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _text_tower(clip: Clip, module: Any, tokens: Tensor) -> Tensor:
    ends = tokens.argmax(dim=-1)
    device, length = module.logit_scale.device, int(ends.max()) + 1
    if clip.compiled_block is not None:
        length = bucket(length, tokens.shape[1])
    tokens, read = to_device(tokens[:, :length], device), to_device(ends, device)
    x = module.token_embedding(tokens) + module.positional_embedding[: tokens.shape[1]]
    x = _blocks(clip, module.transformer, x, read, causal=True)
    features: Tensor = module.ln_final(x) @ module.text_projection
    return features


def _blocks(clip: Clip, transformer: Any, x: Tensor, read: Tensor, *, causal: bool) -> Tensor:
    """The outcome [B, width] of all blocks at position `read` of each sequence x [B, L, width]."""
    run = clip.compiled_block or _block
    blocks = [
        *(partial(run, block, causal=causal) for block in transformer.resblocks[:-1]),
        partial(_last_block, transformer.resblocks[-1], read=read, causal=causal),
    ]
    keeps = not (transformer.grad_checkpointing and torch.is_grad_enabled())
    for block in blocks:
        x = block(x) if keeps else _recomputed(block, x)
    return x


def _recomputed(block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    out: Tensor = checkpoint(block, x, use_reentrant=False)
    return out


def _block(block: Any, x: Tensor, *, causal: bool) -> Tensor:
    y = block.ln_1(x)
    query, key, value = _heads(block.attn, y, 0, 3)
    attended = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    return _after_attention(block, x, attended.transpose(1, 2).reshape(y.shape))


def _last_block(block: Any, x: Tensor, *, read: Tensor, causal: bool) -> Tensor:
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
    plain_gelu = type(block.mlp.gelu) is nn.GELU and block.mlp.gelu.approximate == "none"
    hidden = _gelu_linear(y, up.weight, up.bias) if plain_gelu else block.mlp.gelu(_linear(y, up.weight, up.bias))
    out: Tensor = x + block.ls_2(_linear(hidden, down.weight, down.bias))
    return out


def _takes_onednn(x: Tensor) -> bool:
    return HAS_ONEDNN and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if _takes_onednn(x) and not torch.is_grad_enabled():
        return _onednn(x, weight, bias, gelu=True)
    return functional.gelu(_linear(x, weight, bias))


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if not _takes_onednn(x):
        return functional.linear(x, weight, bias)
    out: Tensor = _OneDnnLinear.apply(x, weight, bias) if torch.is_grad_enabled() else _onednn(x, weight, bias)
    return out


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    # Private, but what torch.compile itself calls for an nn.Linear on the CPU.
    pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    out: Tensor = pointwise(x, weight, bias, "gelu" if gelu else "none", [], "none" if gelu else "")
    return out


class _OneDnnLinear(torch.autograd.Function):
    """functional.linear, whose three matrix products go to oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        for_x = _onednn(grad, weight.t(), None) if ctx.needs_input_grad[0] else None
        rows = grad.reshape(-1, grad.shape[-1])
        return for_x, _onednn(rows.t(), x.reshape(-1, x.shape[-1]).t(), None), rows.sum(0)
