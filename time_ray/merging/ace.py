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


def main_directions(matrix: Tensor) -> Tensor:
    """The main directions of a matrix, all with their mean singular value."""
    main = leading_svd(matrix, int(min(matrix.shape) * REFINED))
    return (main.u @ main.vh) * (main.values.mean() if len(main.values) else 0.0)


def ace(vectors: Sequence[Tensor], ridge: float) -> Tensor:
    """The merge of matrices [m, n] in float64; those that are 0 say nothing of their inputs and are left out."""
    moved = [one for one in vectors if one.any()]
    answers, total, residual = (torch.zeros_like(vectors[0], dtype=torch.float64) for _ in range(3))
    if not moved:
        return answers
    lengths = torch.stack([one.double().square().sum() for one in moved])
    uneven = is_uneven(lengths)
    size = answers.shape[1]
    seen, ridges = answers.new_zeros(size, size), 0.0
    for one in map(Tensor.double, moved):
        centred = one - one.mean(dim=0, keepdim=True)
        covariance = centred.mT @ centred
        scale = float(covariance.trace()) + TINY if uneven else 1.0
        covariance /= scale
        seen += covariance
        answers += centred @ covariance + ridge / scale * centred
        ridges += ridge / scale
        if uneven:
            total += one
            residual += one @ covariance
    prior = seen.mean(dim=0) / (lengths.mean() + TINY if uneven else 1.0)
    seen.diagonal().add_(ridges)
    merged: Tensor = torch.linalg.solve((seen + prior).mT, answers.mT).mT
    if not uneven:
        return merged
    return merged + main_directions(residual - total @ seen / len(moved) + merged)


class Ace(MatrixRule):
    """λ · (Σ τ_i C_i) (Σ C_i + 1 cᵀ)⁻¹ for matrices, as the authors' code has it; λ · mean τ elsewhere.

    C_i = τ_iᵀ τ_i + ρ I with the mean row taken off τ_i, and c is the mean row of Σ C_i without ρ. Where the experts'
    lengths are uneven, each C_i is divided by the trace of τ_iᵀ τ_i, c by the mean ‖τ_i‖², and the main directions of
    Σ τ_i (C_i − mean C) + the merged matrix are added to it, all with their mean singular value.
    """

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
