"""OPCM (arXiv:2501.09522): each new task vector keeps out of the main directions of what is merged already."""

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.matrices import linear_layers
from time_ray.merging.pieces import State
from time_ray.merging.reductions import square
from time_ray.merging.rule import ExpertPiece, FinishContext
from time_ray.merging.singular import thin_svd
from time_ray.merging.sums import MeanNorm, mean_norm_ratio


def projected(vector: Tensor, merged: Tensor, alpha: float) -> Tensor:
    """The new vector [m, n] without its part in the main subspace of the merged one.

    With merged = U diag(σ) Vᵀ and r the first index whose cumulative share of Σσ exceeds α: P = Uᵀ · vector · V loses
    its diagonal and its first r rows and columns' common block. Of a merged vector of 0 nothing has a direction, so the
    new one is whole (the singular vectors of 0 are arbitrary, and all of them would count as main ones).
    """
    if not merged.any():
        return vector
    u, values, v = thin_svd(merged)
    shares = values.double().cumsum(0) / values.double().sum().clamp(min=torch.finfo(torch.float64).tiny)
    rank = int((shares <= alpha).sum())
    main = u[:, :rank].mT @ vector @ v[:rank].mT
    diagonal = ((u.mT @ vector) * v).sum(dim=1)
    diagonal[:rank] = 0  # in the block already
    known: Tensor = u[:, :rank] @ main @ v[:rank] + (u * diagonal) @ v
    return vector - known


class Opcm(MeanNorm):
    """θ_0 + Q · mean‖τ_i‖ / ‖Q‖, where Q sums the projected task vectors (norms over the whole model)."""

    scalars = Average()
    retain = True

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Q, and each ‖τ_i‖²."""
        vector = new.task_vector()
        squares = torch.full((1,), square(vector), dtype=torch.float64, device=vector.device)
        if state is None:
            return [vector, squares]
        merged, stack = linear_layers(state[0], new.piece.entry), linear_layers(vector, new.piece.entry)
        if merged is not None and stack is not None:
            pairs = zip(stack, merged, strict=True)
            vector = torch.stack([projected(new, old, self.alpha) for new, old in pairs]).view(-1)
        return [state[0].add_(vector), torch.cat((state[1], squares))]

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The base moved by Q at the experts' mean norm; a running merge still at the base is no expert yet."""
        whole, *parts = context.totals["norms"]
        counted = [part for part, one in zip(parts, context.experts, strict=True) if part or not one.running]
        return (state[0] * mean_norm_ratio([whole, *counted])).add_(context.base_values)
