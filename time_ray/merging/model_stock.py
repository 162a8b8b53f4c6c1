"""Model Stock (arXiv:2403.19522): as far from the base as the experts agree, tensor by tensor."""

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.pieces import State
from time_ray.merging.reductions import norm, square
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule


class ModelStock(Rule):
    """r · mean θ_i + (1 − r) · θ_0 with r = N c / (1 + (N − 1) c), 0 ≤ r ≤ 1.

    c is the mean cosine of all pairs of task vectors.
    """

    scalars = Average()

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ θ_i, Σ τ_i / ‖τ_i‖, and how many τ_i are not 0."""
        vector = new.task_vector()
        length = norm(vector)
        if length:
            vector.div_(length)
        moved = torch.full((1,), float(length > 0), dtype=torch.float64, device=vector.device)
        if state is None:
            return [new.expert_values.clone(), vector, moved]
        return [state[0].add_(new.expert_values), state[1].add_(vector), state[2].add_(moved)]

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The interpolation between base and mean; one expert alone is itself."""
        ratio, count, moved = 1.0, context.num_experts, state[2].item()
        if count > 1:
            # The cosines of all ordered pairs sum to ‖Σ unit vectors‖² − how many there are; to exactly 0 for one.
            cosines = square(state[1]) - moved if moved > 1 else 0.0
            cosine = cosines / (count * (count - 1))
            ratio = min(count * cosine / (1 + (count - 1) * cosine), 1.0) if cosine > 0 else 0.0
        return (state[0] / count).mul_(ratio).add_(context.base_values * (1 - ratio))
