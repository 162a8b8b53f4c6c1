"""Iso-C (arXiv:2502.04959): the sum of the task vectors with all its singular values made equal."""

from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.matrices import MatricesOf, every_matrix, linear_layers
from time_ray.merging.pieces import State
from time_ray.merging.rule import ExpertPiece, FinishContext, VectorRule


class IsoC(VectorRule):
    """λ · mean(σ) · U Vᵀ of Σ τ = U diag(σ) Vᵀ for matrices; λ · mean τ elsewhere."""

    def __init__(self, scaling: float | None, factors: Mapping[str, float | None] | None, which: str) -> None:
        """`which` matrices: `all` as the authors have it, or `linear` layers (then 0-d tensors are averaged)."""
        super().__init__(scaling, factors)
        self.matrices: MatricesOf = {"all": every_matrix, "linear": linear_layers}[which]
        self.scalars = Average() if which == "linear" else None

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ τ_i."""
        vector = new.task_vector()
        return [vector] if state is None else [state[0].add_(vector)]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The isotropic sum, or the mean."""
        stack = self.matrices(state[0], context.piece.entry)
        if stack is None:
            return state[0] / context.num_experts
        u, values, v = torch.linalg.svd(stack, full_matrices=False)
        isotropic: Tensor = values.mean(dim=-1)[:, None, None] * (u @ v)
        return isotropic.reshape(-1)
