"""What a model costs: parameters, memory and floating-point operations, counted by torch. Takes seconds, no memory."""

import weakref
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from time_ray.clip.features import recomputing
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


class Activations(NamedTuple):
    """Bytes for a whole batch, such as weights in half precision, and for each pair of it."""

    fixed: int
    a_pair: int

    def of(self, pairs: int) -> int:
        """Bytes for a batch."""
        return self.fixed + self.a_pair * pairs


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
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        step = _Step(module, torch.float32, counter.get_total_flops)
        image, both, whole = functional_call(step, _state(step), _batch(module, batch_size))
    return Operations(image / 1e9, (both - image) / 1e9, whole / 1e9)


@cache
def activations(name: str, *, half: bool = False, recompute: bool = False) -> Activations:
    """Bytes that a step holds besides weights, their gradients and the optimiser, at the most.

    Followed over forward pass, symmetric contrastive loss and backward pass of open_clip's own module, on tensors
    without memory. time_ray's own step holds less: it cuts texts to the longest one, and leaves out what is never
    read. Raises UserError as `models.outline` does.

    Args:
        name: The architecture.
        half: Whether the precision is one of 16 bits.
        recompute: Whether activations inside blocks are computed again instead of kept.

    """
    few, more = 8, 16
    with_few, with_more = (_most_alive(name, pairs, half=half, recompute=recompute) for pairs in (few, more))
    a_pair = (with_more - with_few) // (more - few)
    return Activations(with_few - few * a_pair, a_pair)


def _most_alive(name: str, batch_size: int, *, half: bool, recompute: bool) -> int:
    module: Any = outline(name).train()
    with recomputing(module, enabled=recompute), FakeTensorMode():
        step = _Step(module, torch.bfloat16 if half else torch.float32)
        state, batch = _state(step), _batch(module, batch_size)
        for tensor in state.values():
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(_dropped)  # type: ignore[no-untyped-call]
        with _Alive(state.values()) as alive:
            functional_call(step, state, batch)
    most: int = alive.most
    return most


class _Step(nn.Module):
    """A training step but for the optimiser; it returns what `read` gives after each tower, and at the end."""

    def __init__(self, module: Any, dtype: torch.dtype, read: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self.module = module
        self._dtype = dtype
        self._read = read

    def forward(self, images: Tensor, texts: Tensor) -> tuple[int, int, int]:
        with torch.enable_grad():
            with torch.autocast("cpu", self._dtype, enabled=self._dtype != torch.float32):
                image_features: Tensor = self.module(images, None)[0]
                image = self._read()
                text_features: Tensor = self.module(None, texts)[1]
                both = self._read()
            logits = self.module.logit_scale.exp() * image_features.float() @ text_features.float().T
            targets = torch.arange(len(images))
            torch.autograd.backward(cross_entropy(logits, targets) + cross_entropy(logits.T, targets))
        return image, both, self._read()


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors that are alive and were made within, but for these; and the most of them at any time."""

    def __init__(self, others: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most: int = 0
        self._now = 0
        self._known = {id(tensor.untyped_storage()): 0 for tensor in others}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._known:
            self._known[id(storage)] = storage.nbytes()
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, storage: int) -> None:
        self._now -= self._known.pop(storage)


def _dropped(parameter: Tensor) -> None:
    """Its gradient is counted with the parameter, not with what comes and goes."""
    parameter.grad = None


def _state(step: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers without memory."""
    state = {n: torch.empty(p.shape, dtype=p.dtype, requires_grad=True) for n, p in step.named_parameters()}
    return state | {n: torch.empty(b.shape, dtype=b.dtype) for n, b in step.named_buffers()}


def _batch(module: Any, batch_size: int) -> tuple[Tensor, Tensor]:
    """Images and texts of the sizes that the module takes, without memory."""
    side = module.visual.image_size
    height, width = (side, side) if isinstance(side, int) else side
    texts = torch.zeros(batch_size, module.context_length, dtype=torch.long)
    return torch.zeros(batch_size, 3, height, width), texts


def step_cost(name: str, batch_size: int) -> Cost:
    """The cost of one optimiser step on a batch of that many pairs."""
    return Cost(operations(name, batch_size).step)
