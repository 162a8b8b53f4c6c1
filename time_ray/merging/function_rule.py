"""The rule of a technique that is one plain function (see `function`)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from time_ray.merging.errors import origin_of
from time_ray.merging.guard import guarded, like_base
from time_ray.merging.masks import keep_mask
from time_ray.merging.pieces import Piece, State
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule, weight_faults


@dataclass(frozen=True, slots=True)
class TensorContext:
    """What a function may know of the tensor that it merges."""

    name: str
    expert_ids: Sequence[str | None]
    """Oldest first; None is the running merge of a temporal loop."""
    piece: Piece
    base: Tensor

    def keep_mask(self, expert_id: str | None, drop: float, seed: int = 0, *, rescale: bool = False) -> Tensor:
        """A random mask in the base's shape: 0 with probability `drop`, else 1, or 1 / (1 − drop) with `rescale`.

        It depends on seed, expert, tensor and element alone, so no order, chunk or process can change it. Of the
        running merge (None) nothing is dropped: its experts were masked when they were added.
        """
        if expert_id is None or not drop:
            return torch.ones_like(self.base)
        if drop == 1:
            return torch.zeros_like(self.base)
        key = (str(seed), expert_id, self.name)
        mask = keep_mask(key, self.piece.start, self.piece.stop, drop, self.base).view(self.base.shape)
        return mask.div_(1 - drop) if rescale else mask


class FunctionRule(Rule):
    """Calls the function with every piece of every tensor. State: the experts' values."""

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any],
        *,
        elementwise: bool,
        asks_for_tensor: bool,
        pair_only: bool,
    ) -> None:
        """`elementwise`: pieces stay flat, otherwise they have their tensor's shape; `pair_only`: two models only."""
        self.function = function
        self.origin = origin_of(function)
        self.arguments = arguments
        self.elementwise = elementwise
        self.asks_for_tensor = asks_for_tensor
        self.pair_only = pair_only

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """Every expert, as a copy that counts its changes."""
        with torch.inference_mode(mode=False):
            return [*(state or ()), new.expert_values.clone()]

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """What the function returns."""
        piece = context.piece
        where = f"{self.function.__name__} on {piece.name}"
        shape = (piece.stop - piece.start,) if self.elementwise else piece.entry.shape
        with torch.inference_mode(mode=False):
            base, *experts = (values.view(shape) for values in (context.base_values.clone(), *state))
        named = {f"expert {number}": values for number, values in enumerate(experts, 1)}
        with guarded(self.origin, where, {"the base": base, **named}):
            merged = self.function(base, experts, **self.arguments, **self.told(context, base))
        return like_base(self.origin, where, merged, base).reshape(-1)

    def told(self, context: FinishContext, base: Tensor) -> dict[str, Any]:
        """What the function has asked for by name."""
        if not self.asks_for_tensor:
            return {}
        ids = tuple(None if expert.running else expert.id for expert in context.experts)
        return {"tensor": TensorContext(context.piece.name, ids, context.piece, base)}

    def faults(self, num_experts: int) -> Iterator[str]:
        """Also: a weight is for two models."""
        yield from super().faults(num_experts)
        if self.pair_only:
            yield from weight_faults(num_experts)
