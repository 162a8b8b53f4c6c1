"""The drop of DELLA (arXiv:2406.11617): random, and the likelier the smaller an element is among its row."""

import torch
from torch import Tensor

from time_ray.merging.masks import keep_mask_of
from time_ray.merging.pieces import Expert, Piece
from time_ray.merging.sparsify import Sparsifier


class RankedDrop(Sparsifier):
    """Drops elements by their rank of magnitude, and divides each of the others by how likely it was to be kept.

    The probability of a drop falls evenly from drop + ε at a row's (or tensor's) smallest magnitude to drop − ε at its
    largest, within 0 and 1. A row is the last dimension; of equal magnitudes the first ranks lower. Tensors are whole.
    """

    average_scalars = True

    def __init__(self, drop: float, epsilon: float, scope: str, seed: int) -> None:
        """`scope` is what elements are ranked in: `row` or `tensor`."""
        self.drop = drop
        self.epsilon = epsilon
        self.scope = scope
        self.seed = seed

    def __call__(self, vector: Tensor, piece: Piece, expert: Expert) -> Tensor:
        """The vector under the expert's own mask; a running merge was masked when its experts were added."""
        if expert.running or not vector.numel():
            return vector
        width = piece.entry.shape[-1] if self.scope == "row" else vector.numel()
        drops = self.probabilities(vector.view(-1, width)).view(-1)
        mask = keep_mask_of((str(self.seed), expert.id, piece.name), piece.start, drops)
        return vector.mul_(mask).div_(torch.where(drops < 1, 1 - drops, 1.0))

    def probabilities(self, rows: Tensor) -> Tensor:
        """Of each element the probability that it is dropped; an only element of a row has the middle one."""
        count = rows.shape[1]
        steps = torch.linspace(self.epsilon, -self.epsilon, count) if count > 1 else torch.zeros(1)
        by_rank = steps.to(rows).add_(self.drop).clamp_(0, 1).expand_as(rows)
        order = rows.abs().argsort(dim=1, stable=True)
        return torch.empty_like(rows).scatter_(1, order, by_rank)
