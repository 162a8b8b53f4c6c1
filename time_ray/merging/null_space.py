"""The projector of NUFILT (arXiv:2509.21413): a new task vector stays out of the inputs that the merged one answers."""

from collections.abc import Mapping

from torch import Tensor

from time_ray.merging.matrix_rule import MatrixRule
from time_ray.merging.pieces import State
from time_ray.merging.rule import FinishContext
from time_ray.merging.singular import leading_svd


class NullSpace(MatrixRule):
    """λ · Q_N for matrices, with Q_t = Q_{t−1} + τ_t (I − V Vᵀ); λ · mean τ elsewhere.

    V holds the main right singular vectors of Q_{t−1}, a share `rank` of all. What has no direction is not kept out of.
    """

    retain = True

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float | None] | None, which: str, rank: float
    ) -> None:
        super().__init__(scaling, factors, which)
        self.rank = rank

    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """State: Q."""
        if state is None:
            return [new]
        known = leading_svd(state[0], round(self.rank * min(new.shape[1:]))).vh
        return [state[0].add_(new - (new @ known.mT) @ known)]

    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """Q."""
        del context
        return state[0]
