"""MagMax (arXiv:2407.06322): of each element the change with the largest magnitude."""

from torch import Tensor

from time_ray.merging.pieces import State
from time_ray.merging.rule import ExpertPiece, FinishContext, VectorRule


class MagMax(VectorRule):
    """λ τ_i where |τ_i| is largest; of equals the later."""

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: the selection, unscaled; a running merge is unscaled before it competes."""
        vector = new.task_vector()
        factor = self.factor(new.piece, 2) if new.expert.running else 1.0
        if factor not in (0.0, 1.0):
            vector.div_(factor)
        if state is None:
            return [vector]
        newer = vector.abs().sub_(state[0].abs()).sign_().add_(1).clamp_(max=1)
        vector.mul_(newer)
        return [state[0].mul_(newer.neg_().add_(1)).add_(vector)]

    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The selection."""
        del context
        return state[0]
