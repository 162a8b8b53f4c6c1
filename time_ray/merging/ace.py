"""ACE-Merging (arXiv:2603.02945): experts weighted by the covariances of their inputs, read from the task vectors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from time_ray.merging.matrix_rule import MatrixRule
from time_ray.merging.pieces import State
from time_ray.merging.rule import FinishContext
from time_ray.merging.singular import leading_svd

UNEVEN = 0.3
"""A matrix whose experts differ by more in length (see `is_uneven`) is merged with normalised covariances."""
REFINED = 0.3
"""The share of directions that an uneven matrix is strengthened in."""
TINY = 1e-12


def is_uneven(lengths: Tensor) -> bool:
    """Whether the logarithms of the experts' ‖τ_i‖² vary much against their mean: var / mean² > 0.3."""
    logs = (lengths + TINY).log()
    return len(logs) > 1 and bool(logs.var() / (logs.mean().square() + TINY) > UNEVEN)


def ace(vectors: Sequence[Tensor], ridge: float) -> Tensor:
    """The merge of matrices [m, n] in float64; those that are 0 say nothing of their inputs and are left out."""
    moved = [one.double() for one in vectors if one.any()]
    if not moved:
        return torch.zeros_like(vectors[0], dtype=torch.float64)
    lengths = torch.stack([one.square().sum() for one in moved])
    uneven = is_uneven(lengths)
    size = moved[0].shape[1]
    seen, answers = moved[0].new_zeros(size, size), torch.zeros_like(moved[0])
    ridges, residual = 0.0, torch.zeros_like(moved[0])
    for one in moved:
        centred = one - one.mean(dim=0, keepdim=True)
        covariance = centred.mT @ centred
        scale = float(covariance.trace()) + TINY if uneven else 1.0
        covariance /= scale
        seen += covariance
        answers += centred @ covariance + ridge / scale * centred
        ridges += ridge / scale
        if uneven:
            residual += one @ covariance
    prior = seen.mean(dim=0) / (lengths.mean() + TINY if uneven else 1.0)
    seen.diagonal().add_(ridges)
    merged: Tensor = torch.linalg.solve((seen + prior).mT, answers.mT).mT
    if uneven:
        residual -= torch.stack(moved).sum(dim=0) @ seen / len(moved)
        u, values, vh = leading_svd(residual + merged, int(min(merged.shape) * REFINED))
        merged = merged + (u @ vh) * (values.mean() if len(values) else 0.0)
    return merged


class Ace(MatrixRule):
    """λ · (Σ τ_i C_i) (Σ C_i + 1 cᵀ)⁻¹ for matrices, as the authors' code has it; λ · mean τ elsewhere.

    C_i = τ_iᵀ τ_i + ρ I with the mean row taken off τ_i, and c is the mean row of Σ C_i without ρ. Where the experts'
    lengths are uneven, each C_i is divided by the trace of τ_iᵀ τ_i, c by the mean ‖τ_i‖², and the main directions of
    Σ τ_i (C_i − mean C) + the merged matrix are added to it, all with their mean singular value.
    """

    retain = True

    def __init__(
        self, scaling: float | None, factors: Mapping[str, float | None] | None, which: str, ridge: float
    ) -> None:
        super().__init__(scaling, factors, which)
        self.ridge = ridge

    def add_matrices(self, state: State | None, new: Tensor) -> State:
        """State: every τ_i, since the lengths of all decide how each counts."""
        return [*(state or ()), new]

    def merged_matrices(self, state: State, context: FinishContext) -> Tensor:
        """The experts, weighted by their covariances."""
        del context
        parts = [ace(part, self.ridge) for part in zip(*state, strict=True)]
        return torch.stack(parts).to(state[0].dtype)
