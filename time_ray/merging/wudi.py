"""WUDI (arXiv:2503.08099): the matrix that answers to each expert's own inputs as that expert does, in closed form."""

from collections.abc import Mapping

import torch
from torch import Tensor

from time_ray.merging.matrix_rule import MatrixRule
from time_ray.merging.pieces import State
from time_ray.merging.rule import FinishContext


class Wudi(MatrixRule):
    """λ · argmin_τ Σ_i ‖(τ − τ_i) τ_iᵀ‖² / ‖τ_i‖² for matrices; λ · mean τ elsewhere.

    The rows of τ_i stand for the inputs that the expert was trained on. With G_i = τ_iᵀ τ_i / ‖τ_i‖² the minimum is at
    (Σ τ_i G_i) (Σ G_i)⁻¹. A ridge ρ, added to each G_i, pulls what the experts hardly tell towards Σ τ_i, where the
    authors' descent begins: (Σ τ_i G_i + ρ N Σ τ_i) (Σ G_i + ρ N I)⁻¹.
    """

    retain = True

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float | None] | None, which: str, ridge: float
    ) -> None:
        super().__init__(scaling, factors, which)
        self.ridge = ridge

    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """State: Σ τ_i, Σ τ_i G_i and Σ G_i [parts, n, n], the last two in float64 (an inverse needs their digits)."""
        exact = new.double()
        length = exact.square().sum(dim=(1, 2), keepdim=True)
        scaled = exact / torch.where(length > 0, length, 1.0)
        wide = exact.shape[1] < exact.shape[2]
        inputs = exact.mT @ scaled
        answers = (scaled @ exact.mT) @ exact if wide else exact @ inputs
        added = [new, answers, inputs]
        return added if state is None else [old.add_(one) for old, one in zip(state, added, strict=True)]

    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """The minimum."""
        total, answers, inputs = state
        ridge = self.ridge * context.num_experts
        inputs = inputs + ridge * torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
        solved: Tensor = torch.linalg.solve(inputs, (answers + ridge * total).mT)
        return solved.mT.to(total.dtype)
