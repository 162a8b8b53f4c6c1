"""Sums of task vectors: task arithmetic (arXiv:2212.04089), DARE and breadcrumbs without election."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.pieces import Piece, State
from time_ray.merging.reductions import square
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule, VectorRule
from time_ray.merging.sparsify import Dense, Sparsifier


class Sum(VectorRule):
    """λ Σ τ̂_i."""

    def __init__(
        self,
        scaling: float | None,
        factors: Mapping[str, float | None] | None = None,
        sparsify: Sparsifier | None = None,
    ) -> None:
        """`sparsify` is done to each expert's vector first."""
        super().__init__(scaling, factors)
        self.sparsify = sparsify or Dense()
        self.scalars = Average() if self.sparsify.average_scalars else None
        self.selection = self.sparsify.selection
        self.carries = isinstance(self.sparsify, Dense)

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ τ̂_i."""
        vector = self.sparsify(new.task_vector(), new.piece, new.expert)
        return [vector] if state is None else [state[0].add_(vector)]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The sum."""
        del context
        return state[0]


class MeanNorm(Rule):
    """A rule that ends at the experts' mean norm. State: the merged vector, and each ‖τ_i‖²."""

    def partial_totals(self, state: State, piece: Piece) -> tuple[str, list[float]]:
        """‖merged vector‖², then each ‖τ_i‖²."""
        del piece
        return "norms", [square(state[0]), *state[1].tolist()]

    def needs_totals(self, state: State) -> bool:
        """Always: norms are of the whole model."""
        del state
        return True


class NormedSum(MeanNorm, VectorRule):
    """The sum of the task vectors, rescaled to the mean of their norms (over the whole model)."""

    def factor(self, piece: Piece, num_experts: int) -> float:
        """1 unless scaling or LiNeS says otherwise: the norm is set already."""
        return 1.0 if self.scaling is None and self.factors is None else super().factor(piece, num_experts)

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ τ_i, and each ‖τ_i‖²."""
        vector = new.task_vector()
        squares = torch.full((1,), square(vector), dtype=torch.float64, device=vector.device)
        return [vector, squares] if state is None else [state[0].add_(vector), torch.cat((state[1], squares))]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The sum with the experts' mean norm."""
        return state[0] * mean_norm_ratio(context.totals["norms"])


def mean_norm_ratio(squares: Sequence[float]) -> float:
    """The mean of the norms of the parts over the norm of the whole, from their squares (the whole first)."""
    whole, *parts = squares
    return math.fsum(map(math.sqrt, parts)) / len(parts) / math.sqrt(whole) if whole else 0.0
