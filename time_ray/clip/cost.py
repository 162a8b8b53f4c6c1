"""What a model costs: its parameters, and floating-point operations counted by torch. Takes seconds and no memory."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from time_ray.clip.models import outline
from time_ray.core.budget import Cost


class Size(NamedTuple):
    """Parameters of a model by tower; the temperature is among the text tower's."""

    total: int
    image: int
    text: int


class Operations(NamedTuple):
    """GFLOPs of one batch: each tower forward, and the whole of a step. A multiply-add counts as two."""

    image: float
    text: float
    step: float


@cache
def size(name: str) -> Size:
    """The parameters of an open_clip architecture. Raises UserError as `models.outline` does."""
    module: Any = outline(name)
    total, image = (sum(tensor.numel() for tensor in part.parameters()) for part in (module, module.visual))
    return Size(total, image, total - image)


@cache
def operations(name: str, batch_size: int) -> Operations:
    """Operations on a batch of that many pairs. Raises UserError as `models.outline` does.

    Counted by torch's FlopCounterMode over forward pass, symmetric contrastive loss and backward pass of open_clip's
    own module, on tensors without memory: what attention recomputes in its backward pass is among them, the
    optimiser is not. So counted, ViT-B-16 takes the 63,394.76 GFLOPs on 512 pairs that FoMo-in-Flux states.
    (time_ray's own step leaves out what is never read, see features.py; budgets compare across implementations.)
    """
    module: Any = outline(name).train()
    side = module.visual.image_size
    height, width = (side, side) if isinstance(side, int) else side
    with torch.enable_grad(), FakeTensorMode(), FlopCounterMode(display=False) as counter:
        state = {n: torch.empty(p.shape, dtype=p.dtype, requires_grad=True) for n, p in module.named_parameters()}
        state |= {n: torch.empty(b.shape, dtype=b.dtype) for n, b in module.named_buffers()}
        images = torch.zeros(batch_size, 3, height, width)
        texts = torch.zeros(batch_size, module.context_length, dtype=torch.long)
        image_features: Tensor = functional_call(module, state, (images, None))[0]
        image = counter.get_total_flops()
        text_features: Tensor = functional_call(module, state, (None, texts))[1]
        both = counter.get_total_flops()
        logits, targets = state["logit_scale"].exp() * image_features @ text_features.T, torch.arange(batch_size)
        torch.autograd.backward(cross_entropy(logits, targets) + cross_entropy(logits.T, targets))
        step = counter.get_total_flops()
    return Operations(image / 1e9, (both - image) / 1e9, step / 1e9)


def step_cost(name: str, batch_size: int) -> Cost:
    """The cost of one optimiser step on a batch of that many pairs."""
    return Cost(operations(name, batch_size).step)
