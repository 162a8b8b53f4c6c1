"""Iso-C (arXiv:2502.04959): the sum of the task vectors with all its singular values made equal."""

from torch import Tensor

from time_ray.merging.matrix_rule import MatrixRule
from time_ray.merging.pieces import State
from time_ray.merging.rule import FinishContext
from time_ray.merging.singular import thin_svd


class IsoC(MatrixRule):
    """λ · mean(σ) · U Vᵀ of Σ τ = U diag(σ) Vᵀ for matrices; λ · mean τ elsewhere."""

    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """State: Σ τ_i."""
        return [new] if state is None else [state[0].add_(new)]

    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """The isotropic sum."""
        del context
        u, values, vh = thin_svd(state[0])
        return values.mean(dim=-1)[:, None, None] * (u @ vh)
