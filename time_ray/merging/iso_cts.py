"""Iso-CTS (arXiv:2502.04959): Iso-C, where the least common directions make room for each expert's own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.matrix_rule import MatrixRule
from time_ray.merging.pieces import State
from time_ray.merging.rule import FinishContext
from time_ray.merging.singular import leading_svd, orthonormal


def shares(rank: int, num_experts: int, common: float) -> tuple[int, int]:
    """How many directions are common, and how many each expert has of its own: all of them, evenly divided."""
    own = round((rank - int(rank * common)) / num_experts)
    own -= own * num_experts > rank  # rounded up where nothing is left to take it from
    return rank - own * num_experts, own


class IsoCts(MatrixRule):
    """λ · mean(σ) · U⊥ V⊥ᵀ for matrices; λ · mean τ elsewhere.

    U = [U_c U_1 ... U_N], V and σ likewise. U_c, σ_c and V_c are the main directions of Σ τ_i, a share `common` of all
    (or a few more or less, see `shares`); U_i, σ_i and V_i those of τ_i − U_c U_cᵀ τ_i, equally many of each expert.
    U⊥ and V⊥ are the nearest matrices with orthonormal columns.
    """

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float | None] | None, which: str, common: float
    ) -> None:
        super().__init__(scaling, factors, which)
        self.common = common

    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """State: every τ_i, since what is common is known at the end."""
        return [*(state or ()), new]

    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """Common directions and the experts' own, all of the same length."""
        rank = min(state[0].shape[1:])
        common, own = shares(rank, context.num_experts, self.common)
        total = state[0].clone()
        for one in state[1:]:
            total.add_(one)
        parts = [leading_svd(total, common)]
        known = parts[0].u
        parts += [leading_svd(one - known @ (known.mT @ one), own) for one in state if own]
        length = torch.cat([part.values for part in parts], dim=1).sum(dim=1) / rank
        left = orthonormal(torch.cat([part.u for part in parts], dim=2))
        right = orthonormal(torch.cat([part.vh for part in parts], dim=1).mT)
        return length[:, None, None] * (left @ right.mT)
