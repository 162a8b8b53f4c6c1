"""Iso-C (arXiv:2502.04959): the sum of the task vectors with all its singular values made equal."""

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.matrices import matrices
from time_ray.merging.pieces import State
from time_ray.merging.rule import ExpertPiece, FinishContext, VectorRule


class IsoC(VectorRule):
    """λ · mean(σ) · U Vᵀ of Σ τ = U diag(σ) Vᵀ for linear layers; λ · mean τ elsewhere."""

    scalars = Average()

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ τ_i."""
        vector = new.task_vector()
        return [vector] if state is None else [state[0].add_(vector)]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The isotropic sum, or the mean."""
        stack = matrices(state[0], context.piece.entry)
        if stack is None:
            return state[0] / context.num_experts
        u, values, v = torch.linalg.svd(stack, full_matrices=False)
        isotropic: Tensor = values.mean(dim=-1)[:, None, None] * (u @ v)
        return isotropic.reshape(-1)
