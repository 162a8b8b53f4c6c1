"""Blocks of transformers as torch.compile makes them: fewer kernels a step, where a GPU waits for their launches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

TEXT_BUCKET = 16  # texts are cut to a multiple of so many tokens: each length is compiled once
MOST_FORMS = 64  # of a block's input that are compiled: sizes of batches and lengths of texts

Block = Callable[..., Tensor]


def compiled(block: Block, towers: Any, *, pairs: int, forward: Callable[[], Any]) -> tuple[Block, str]:
    """The block as torch.compile makes it, and nothing to say; or as it is, and why.

    Args:
        block: A pure function of (module, x [B, L, width], causal=...).
        towers: For each tower a module of its blocks, the length of its sequences, their width, and whether a position
            sees only those before it.
        pairs: B of a step.
        forward: Forward passes run within what it gives.

    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_FORMS)  # noqa: SLF001
    made = torch.compile(block, dynamic=False, fullgraph=True)
    try:
        for module, length, width, causal in towers:
            at = next(module.parameters())
            x = torch.zeros(pairs, length, width, device=at.device, requires_grad=True)
            with forward():
                out = made(module, x, causal=causal)
            torch.autograd.grad(out.float().sum(), x)
    except Exception as error:  # noqa: BLE001 a compiler fails in any way, and training can do without it
        return block, f"torch.compile failed, blocks run as they are: {_first_line(error)}"
    return made, ""


def bucket(length: int, most: int) -> int:
    """The length, up to `most`, that texts of this length are cut to."""
    return min(most, -(-length // TEXT_BUCKET) * TEXT_BUCKET)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}"
