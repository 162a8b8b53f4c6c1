"""Model Stock (arXiv:2403.19522): as far from the base as the experts agree, tensor by tensor."""

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.pieces import State
from time_ray.merging.rule import End, Rule, Visit


class ModelStock(Rule):
    """r · mean θ_i + (1 − r) · θ_0 with r = N c / (1 + (N − 1) c), 0 ≤ r ≤ 1.

    c is the mean cosine of all pairs of task vectors.
    """

    whole = True
    scalars = Average()

    def add(self, state: State | None, visit: Visit) -> State:
        """State: Σ θ_i, Σ τ_i / ‖τ_i‖, and how many τ_i are not 0."""
        vector = visit.vector()
        norm = vector.double().norm().item()
        vector.mul_(1 / norm if norm else 0.0)
        moved = torch.tensor([float(norm > 0)], dtype=torch.float64)
        if state is None:
            return [visit.expert.clone(), vector, moved]
        return [state[0].add_(visit.expert), state[1].add_(vector), state[2].add_(moved)]

    def finish(self, state: State, end: End) -> Tensor:
        """The interpolation between base and mean; one expert alone is itself."""
        ratio = 1.0
        if end.count > 1:
            cosine = (state[1].double().square().sum().item() - state[2].item()) / (end.count * (end.count - 1))
            ratio = min(end.count * cosine / (1 + (end.count - 1) * cosine), 1.0) if cosine > 0 else 0.0
        return (state[0] / end.count).mul_(ratio).add_(end.base * (1 - ratio))
