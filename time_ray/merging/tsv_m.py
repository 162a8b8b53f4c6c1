"""TSV-M (arXiv:2412.00081): each expert's main singular vectors, turned until they are orthogonal to the others'."""

import torch
from torch import Tensor

from time_ray.merging.matrix_rule import MatrixRule
from time_ray.merging.pieces import State
from time_ray.merging.rule import FinishContext
from time_ray.merging.singular import leading_svd, orthonormal


class TsvM(MatrixRule):
    """λ · U⊥ diag(σ) V⊥ᵀ for matrices; λ · mean τ elsewhere.

    U = [U_1 ... U_N], σ and V likewise, hold the r / N largest singular values of each τ_i = U_i diag(σ_i) V_iᵀ of rank
    r, and their vectors. U⊥ and V⊥ are the nearest matrices with orthonormal columns. An expert that did not move a
    matrix takes no share of its rank.
    """

    retain = True

    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """State: U [parts, m, t, k], σ [parts, t, k] and Vᵀ [parts, t, k, n] of t experts, with k = r / t."""
        parts, rows, columns = new.shape
        rank = min(rows, columns)
        if state is None:
            shapes = (parts, rows, 0, rank), (parts, 0, rank), (parts, 0, rank, columns)
            state = [new.new_empty(shape) for shape in shapes]
        if not new.any():
            return state
        share = max(rank // (state[1].shape[1] + 1), 1)
        u, values, vh = leading_svd(new, share)
        return [
            torch.cat((state[0][..., :share], u[:, :, None]), dim=2),
            torch.cat((state[1][..., :share], values[:, None]), dim=1),
            torch.cat((state[2][..., :share, :], vh[:, None]), dim=1),
        ]

    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """The sum of what the experts keep, in orthogonal directions."""
        u, values, vh = state[0].flatten(2), state[1].flatten(1), state[2].flatten(1, 2)
        if not values.numel():
            return torch.zeros_like(context.base_values)
        return (orthonormal(u) * values[:, None]) @ orthonormal(vh.mT).mT
