"""The geometric median of models (Weiszfeld 1937; of neural networks, arXiv:1912.13445): the point nearest to all."""

from collections.abc import Sequence
from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor

from time_ray.merging.lines import tower
from time_ray.merging.pieces import Piece, State
from time_ray.merging.reductions import combination, gram
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule

STEPS = 1000
ARRIVED = 1e-9
"""Weights that change by less do not change."""
SAME = 1e-7
"""Points nearer to each other than this share of the largest norm are one point, as far as float64 tells."""


def distances(weights: Tensor, dots: Tensor) -> Tensor:
    """How far each point is from combinations of them [..., N] whose weights sum to 1, from their dot products."""
    towards = weights @ dots
    own = (towards * weights).sum(dim=-1, keepdim=True)
    return (own - 2 * towards + dots.diag()).clamp(min=0).sqrt()


def median_weights(dots: Tensor) -> Tensor:
    """Argmin Σ_i ‖x − θ_i‖ as a combination of the points with these dot products [N, N]; its weights sum to 1.

    A point is the median itself if the unit vectors to all others sum to less than there are copies of it (Vardi and
    Zhang 2000). Otherwise Weiszfeld's steps x ← Σ (θ_i / d_i) / Σ (1 / d_i) lead there from the mean.
    """
    count = len(dots)
    near = SAME * float(dots.diag().max().sqrt())
    each = torch.eye(count, dtype=torch.float64)
    apart = distances(each, dots)
    pulls = torch.where(apart > near, 1 / apart, 0.0)
    pulls_from = pulls - pulls.sum(dim=1, keepdim=True) * each
    strength = ((pulls_from @ dots) * pulls_from).sum(dim=1).clamp(min=0).sqrt()
    slack = (apart <= near).sum(dim=1) - strength
    if slack.max() > SAME:
        return each[int(slack.argmax())]
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    for _ in range(STEPS):
        inverse = 1 / distances(weights, dots).clamp(min=near)
        last, weights = weights, inverse / inverse.sum()
        if float((weights - last).abs().max()) < ARRIVED:
            break
    return weights


@lru_cache(maxsize=8)  # every tensor of a model asks with the same ones
def weights_of_totals(dots: tuple[float, ...]) -> Sequence[float]:
    """The same from dot products row by row."""
    found: list[float] = median_weights(torch.tensor(dots, dtype=torch.float64).view(isqrt(len(dots)), -1)).tolist()
    return found


class GeometricMedian(Rule):
    """argmin_θ Σ_i ‖θ − θ_i‖, with norms over the model, each tower or each tensor. Of two models it is their mean."""

    def __init__(self, scope: str) -> None:
        """`scope` is what counts as a point: `model`, `tower` or `tensor`."""
        self.over = scope

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: every expert."""
        return [*(state or ()), new.expert_values.clone()]

    def partial_totals(self, state: State, piece: Piece) -> tuple[str, list[float]] | None:
        """The dot products of all experts; None where nothing but this piece counts."""
        return None if self.over == "tensor" else (self.scope(piece.name), gram(state).view(-1).tolist())

    def needs_totals(self, state: State) -> bool:
        """Whether a point is more than a tensor."""
        del state
        return self.over != "tensor"

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The experts with the weights of their scope."""
        if self.over == "tensor":
            return combination(median_weights(gram(state)).tolist(), state)
        return combination(weights_of_totals(tuple(context.totals[self.scope(context.piece.name)])), state)

    def scope(self, name: str) -> str:
        """The tower of a tensor, or the model."""
        return tower(name) if self.over == "tower" else ""
