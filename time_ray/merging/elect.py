"""Sign election: TIES (arXiv:2306.01708), and DARE, DELLA and breadcrumbs on top of it.

Each element's sign is that of the sum of its sparse task vectors; only what agrees with it is aggregated.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.lines import tower
from time_ray.merging.pieces import Piece, State
from time_ray.merging.rule import ExpertPiece, FinishContext, VectorRule
from time_ray.merging.sparsify import Sparsifier


class Elect(VectorRule):
    """λ · aggregate of the elements that agree with the elected sign.

    An element whose sum is exactly 0 takes the majority of the elected signs of its scope (negative if that is 0 too),
    as the original does.
    """

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float | None] | None, sparsify: Sparsifier, aggregate: str
    ) -> None:
        """`aggregate`: mean (over what is not 0), sum or max."""
        super().__init__(scaling, factors)
        self.sparsify = sparsify
        self.aggregate = aggregate
        self.scalars = Average() if sparsify.average_scalars else None
        self.selection = sparsify.selection

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ⁺, Σ⁻; then n⁺, −n⁻ for mean or the extremes for max."""
        vector = self.sparsify(new.task_vector(), new.piece, new.expert)
        positive = vector.clamp(min=0)
        negative = vector.sub_(positive)
        if self.aggregate == "max":
            extremes = [positive, negative]
        else:
            extremes = [positive.sign(), negative.sign()] if self.aggregate == "mean" else []
        if state is None:
            return [positive, negative, *(extreme.clone() for extreme in extremes)]
        state[0].add_(positive)
        state[1].add_(negative)
        if self.aggregate == "mean":
            state[2].add_(extremes[0])
            state[3].add_(extremes[1])
        elif self.aggregate == "max":
            torch.maximum(state[2], positive, out=state[2])
            torch.minimum(state[3], negative, out=state[3])
        return state

    def partial_totals(self, state: State, piece: Piece) -> tuple[str, list[float]]:
        """The sum of the elected signs."""
        return self.scope(piece.name), [(state[0] + state[1]).sign_().sum(dtype=torch.float64).item()]

    def needs_totals(self, state: State) -> bool:
        """Whether some element's votes cancel exactly."""
        decided = (state[0] + state[1]).sign_().abs_()
        return bool(decided.neg_().add_(1).mul_(state[0]).any())

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The aggregate on the elected side."""
        elected = (state[0] + state[1]).sign_()
        majority = context.totals.get(self.scope(context.piece.name), (0.0,))[0]
        upper = elected.add_(1).clamp_(max=1) if majority > 0 else elected.clamp_(min=0)
        positive, negative = self.sides(state)
        merged = positive.mul_(upper).add_(negative.mul_(1 - upper))
        if self.aggregate == "max" and not majority:
            merged.mul_((state[0] + state[1]).sign_().abs_())  # the original multiplies by the sign, here 0
        return merged

    def sides(self, state: State) -> tuple[Tensor, Tensor]:
        """The aggregates of the positive and of the negative elements."""
        if self.aggregate == "mean":
            return state[0] / state[2].clamp(min=1), state[1] / state[3].neg().clamp_(min=1)
        positive, negative = state[2:] if self.aggregate == "max" else state
        return positive.clone(), negative.clone()

    def scope(self, name: str) -> str:
        """Where the majority is counted: the scope of the thresholds, else the tower."""
        return self.selection.scope(name) if self.selection else tower(name)
