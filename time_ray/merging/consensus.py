"""Consensus merging (TALL masks, arXiv:2405.07813): keep what several experts would miss."""

from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.pieces import State
from time_ray.merging.rule import ExpertPiece, FinishContext, VectorRule


class Consensus(VectorRule):
    """λ Σ τ_i where at least `min_agree` experts have |τ_i| > mask_scale · |Σ τ − τ_i|."""

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float | None] | None, min_agree: int, mask_scale: float
    ) -> None:
        super().__init__(scaling, factors)
        self.min_agree = min_agree
        self.mask_scale = mask_scale

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: every τ_i, since each mask depends on the final sum."""
        return [*(state or ()), new.task_vector()]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The masked sum."""
        del context
        total = state[0].clone()
        for vector in state[1:]:
            total.add_(vector)
        votes = torch.zeros_like(total)
        for vector in state:
            rest = (total - vector).abs_().mul_(self.mask_scale)
            votes.add_(vector.abs().sub_(rest).sign_().clamp_(min=0))
        return total.mul_(votes.sub_(self.min_agree - 1).clamp_(0, 1))
