"""Sums of task vectors: task arithmetic (arXiv:2212.04089), DARE and breadcrumbs without election."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.pieces import Piece, State
from time_ray.merging.reductions import square
from time_ray.merging.rule import End, Rule, VectorRule, Visit
from time_ray.merging.sparsify import Dense, Sparsifier


class Sum(VectorRule):
    """λ Σ τ̂_i."""

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float] | None = None, sparsify: Sparsifier | None = None
    ) -> None:
        """`sparsify` is done to each expert's vector first."""
        super().__init__(scaling, factors)
        self.sparsify = sparsify or Dense()
        self.whole = self.sparsify.whole
        self.scalars = Average() if self.sparsify.average_scalars else None
        self.selection = self.sparsify.selection
        self.carries = isinstance(self.sparsify, Dense)

    def add(self, state: State | None, visit: Visit) -> State:
        """State: Σ τ̂_i."""
        vector = self.sparsify(visit.vector(), visit.piece, visit.who)
        return [vector] if state is None else [state[0].add_(vector)]

    def vector(self, state: State, end: End) -> Tensor:
        """The sum."""
        del end
        return state[0]


class MeanNorm(Rule):
    """A rule that ends at the experts' mean norm. State: the merged vector, and each ‖τ_i‖²."""

    def tally(self, state: State, piece: Piece) -> tuple[str, list[float]]:
        """‖merged vector‖², then each ‖τ_i‖²."""
        del piece
        return "norms", [square(state[0]), *state[1].tolist()]

    def settled(self, state: State) -> bool:
        """Never: norms are of the whole model."""
        del state
        return False


class NormedSum(MeanNorm, VectorRule):
    """The sum of the task vectors, rescaled to the mean of their norms (over the whole model)."""

    def factor(self, at: Piece, count: int) -> float:
        """1 unless scaling or LiNeS says otherwise: the norm is set already."""
        return 1.0 if self.scaling is None and self.factors is None else super().factor(at, count)

    def add(self, state: State | None, visit: Visit) -> State:
        """State: Σ τ_i, and each ‖τ_i‖²."""
        vector = visit.vector()
        squares = torch.tensor([square(vector)], dtype=torch.float64)
        return [vector, squares] if state is None else [state[0].add_(vector), torch.cat((state[1], squares))]

    def vector(self, state: State, end: End) -> Tensor:
        """The sum with the experts' mean norm."""
        return state[0] * mean_norm_ratio(end.totals["norms"])


def mean_norm_ratio(squares: Sequence[float]) -> float:
    """The mean of the norms of the parts over the norm of the whole, from their squares (the whole first)."""
    whole, *parts = squares
    return math.fsum(map(math.sqrt, parts)) / len(parts) / math.sqrt(whole) if whole else 0.0
