"""The Karcher mean of weights on the sphere, tensor by tensor (Karcher 1977): slerp for any number of models."""

import math

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.pieces import State
from time_ray.merging.reductions import combination, gram
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule

TINY = 1e-8
"""A tensor with a smaller norm has no direction."""
STEPS = 100
"""A mean on the sphere is found in few of them, unless directions are spread over more than half of it."""
ARRIVED = 1e-12
"""The length of a step that is none."""


def karcher_weights(cosines: Tensor) -> Tensor:
    """The Karcher mean of unit vectors as a combination of them, from their cosines [N, N].

    It is the point m from which the arcs to all vectors cancel: Σ log_m(u_i) = 0. Each step follows their mean. The
    mean of opposite vectors is not defined; the first of them stays.
    """
    count = len(cosines)
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    if weights @ cosines @ weights < TINY**2:
        weights = torch.eye(count, dtype=torch.float64)[0]
    weights = weights / (weights @ cosines @ weights).sqrt()
    for _ in range(STEPS):
        from_mean = (cosines @ weights).clamp(-1, 1)
        angles = from_mean.acos()
        stretch = torch.where(angles.sin() > TINY, angles / angles.sin(), 1.0) / count
        arc = stretch - (stretch @ from_mean) * weights  # Σ stretch_i (u_i − cos_i m)
        length = float((arc @ cosines @ arc).clamp(min=0).sqrt())
        if length < ARRIVED:
            break
        weights = math.cos(length) * weights + math.sin(length) / length * arc
        weights = weights / (weights @ cosines @ weights).sqrt()
    return weights


class Karcher(Rule):
    """mean ‖θ_i‖ · the Karcher mean of θ_i / ‖θ_i‖, per tensor. Tensors without length have no direction."""

    scalars = Average()

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: every expert."""
        return [*(state or ()), new.expert_values.clone()]

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The mean direction at the mean length; one expert alone is itself."""
        del context
        if len(state) == 1:
            return state[0].clone()
        dots = gram(state)
        norms = dots.diag().sqrt()
        real = norms > TINY
        if not real.any():
            return torch.zeros_like(state[0])
        lengths = norms[real]
        weights = torch.zeros_like(norms)
        weights[real] = karcher_weights(dots[real][:, real] / lengths / lengths[:, None]) / lengths * norms.mean()
        return combination(weights.tolist(), state)
