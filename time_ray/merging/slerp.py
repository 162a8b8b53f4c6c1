"""Spherical interpolation of weights, tensor by tensor (Shoemake 1985)."""

import math
from collections.abc import Iterator

from torch import Tensor

from time_ray.merging.average import Average, PairAverage
from time_ray.merging.pieces import State
from time_ray.merging.reductions import dot, norm
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule, weight_faults

PARALLEL = 0.9995
"""Above this cosine the arc is a line, as in every public implementation."""
TINY = 1e-8
"""A tensor with a smaller norm has no direction."""


def slerp(older: Tensor, newer: Tensor, share: float) -> Tensor:
    """The point at `share` of the arc from older to newer (in its place), of the line if parallel or one is 0."""
    lengths = norm(older), norm(newer)
    cosine = 1.0
    if min(lengths) > TINY:
        cosine = min(max(dot(older, newer) / (lengths[0] * lengths[1]), -1.0), 1.0)
    angle = math.acos(cosine)
    if abs(cosine) > PARALLEL:
        return older.mul_(1 - share).add_(newer * share)
    weights = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
    return older.mul_(weights[0]).add_(newer * weights[1])


class Slerp(Rule):
    """A running slerp: the t-th expert has the share 1/t, or the newer of two the share `weight`."""

    def __init__(self, weight: float | None = None) -> None:
        self.weight = weight
        self.scalars = Average() if weight is None else PairAverage(weight)

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: the running merge."""
        if state is None:
            return [new.expert_values.clone()]
        return [slerp(state[0], new.expert_values, 1 / new.expert.number if self.weight is None else self.weight)]

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The running merge."""
        del context
        return state[0].clone()

    def faults(self, num_experts: int) -> Iterator[str]:
        """Also: a weight is for two models."""
        yield from super().faults(num_experts)
        if self.weight is not None:
            yield from weight_faults(num_experts)
