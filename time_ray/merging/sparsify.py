"""What is done to one expert's task vector before it is added: nothing, a trim by magnitude, or a random drop."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from time_ray.merging.lines import tower
from time_ray.merging.masks import keep_mask
from time_ray.merging.pieces import Bounds, Expert, Piece
from time_ray.merging.selection import Selection


class Sparsifier(ABC):
    """Zeroes some elements of a task vector (and may rescale the others)."""

    average_scalars: bool = False
    selection: Selection | None = None

    @abstractmethod
    def __call__(self, vector: Tensor, piece: Piece, expert: Expert) -> Tensor:
        """The sparse vector; `vector` may be used up."""


class Dense(Sparsifier):
    """Keeps everything."""

    def __call__(self, vector: Tensor, piece: Piece, expert: Expert) -> Tensor:
        """The vector itself."""
        del piece, expert
        return vector


class Scoped(Selection):
    """A selection whose scope is each tower, the whole model or each tensor."""

    def __init__(self, scope: str) -> None:
        self.over = scope

    def scope(self, name: str) -> str:
        """The tower, the model or the tensor itself."""
        return {"tower": tower(name), "model": ""}.get(self.over, name)

    def from_towers(self, towers: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The same for towers, their sum for the model."""
        if self.over == "model":
            return {"": torch.stack(list(towers.values())).sum(dim=0)} if towers else {}
        return dict(towers) if self.over == "tower" else None


class Largest(Scoped):
    """The largest magnitudes: a share `keep` of them (TIES)."""

    def __init__(self, keep: float, scope: str, *, exact: bool) -> None:
        super().__init__(scope)
        self.keep = keep
        self.exact = exact

    @property
    def label(self) -> str:
        """Its kind and parameters."""
        return f"largest {self.keep!r} {self.over}{' exact' * self.exact}"

    def ranks(self, size: int) -> tuple[int | None, int | None] | None:
        """From the (size − int(keep · size))-th smallest on, as the original does; `exact`: from the next one on."""
        kept = int(self.keep * size)
        if self.exact and not kept:
            return None
        rank = size - kept - (0 if self.exact else 1)
        return (rank if rank > 0 else None, None)


class Middle(Scoped):
    """The magnitudes between the smallest share `drop_low` and the largest share `drop_high` (breadcrumbs)."""

    def __init__(self, drop_low: float, drop_high: float, scope: str) -> None:
        super().__init__(scope)
        self.drop_low = drop_low
        self.drop_high = drop_high

    @property
    def label(self) -> str:
        """Its kind and parameters."""
        return f"middle {self.drop_low!r} {self.drop_high!r} {self.over}"

    def ranks(self, size: int) -> tuple[int | None, int | None] | None:
        """The ranks from int(drop_low · size) to size − int(drop_high · size) − 1."""
        low, high = int(self.drop_low * size), size - int(self.drop_high * size) - 1
        if low > high:
            return None
        return (low or None, high if high < size - 1 else None)


class Trim(Sparsifier):
    """Keeps the elements whose magnitude a selection over tower, model or tensor lets through."""

    def __init__(self, selection: Scoped) -> None:
        self.selection: Scoped = selection

    def __call__(self, vector: Tensor, piece: Piece, expert: Expert) -> Tensor:
        """The vector within the bounds of its scope."""
        return trim(vector, piece, expert.bounds.get(self.selection.scope(piece.name), Bounds()))


class RowTrim(Sparsifier):
    """Keeps the middle magnitudes of each row (last dimension) of whole tensors; equal magnitudes rank by place."""

    def __init__(self, selection: Middle) -> None:
        self.middle = selection

    def __call__(self, vector: Tensor, piece: Piece, expert: Expert) -> Tensor:
        """The vector with every row trimmed; a 0-d tensor is a row of one."""
        del expert
        width = piece.entry.shape[-1] if piece.entry.shape else 1
        ranks = self.middle.ranks(width)
        if ranks is None:
            return torch.zeros_like(vector)
        low, high = ranks
        rows = vector.view(-1, width)
        kept = rows.abs().argsort(dim=1, stable=True)[:, low or 0 : width if high is None else high + 1]
        return torch.zeros_like(rows).scatter_(1, kept, rows.gather(1, kept)).view(-1)


class Drop(Sparsifier):
    """Drops a random share of the elements and divides the others by what is left (DARE, arXiv:2311.03099)."""

    average_scalars = True

    def __init__(self, drop: float, seed: int) -> None:
        self.drop = drop
        self.seed = seed

    def __call__(self, vector: Tensor, piece: Piece, expert: Expert) -> Tensor:
        """The vector under the expert's own mask; a running merge was masked when its experts were added."""
        if expert.running or not self.drop:
            return vector
        if self.drop == 1:
            return torch.zeros_like(vector)
        mask = keep_mask((str(self.seed), expert.id, piece.name), piece.start, piece.stop, self.drop, vector)
        return vector.mul_(mask).div_(1 - self.drop)


def trim(vector: Tensor, piece: Piece, bounds: Bounds) -> Tensor:
    """The elements of a piece within the bounds, zero elsewhere."""
    if bounds.nothing:
        return torch.zeros_like(vector)
    if bounds.last is None or bounds.low is None:
        return within(vector, bounds)
    order, element = bounds.last
    split = {True: piece.stop, False: piece.start}[piece.order < order]
    if piece.order == order:
        split = min(max(element + 1, piece.start), piece.stop)
    split -= piece.start
    above = Bounds(following(bounds.low), bounds.high)
    return torch.cat((within(vector[:split], bounds), within(vector[split:], above)))


def within(vector: Tensor, bounds: Bounds) -> Tensor:
    """The elements whose magnitude, as float32, is from low to high, zero elsewhere."""
    if vector.dtype != torch.float32:
        return vector * within(vector.float(), bounds).sign().abs()
    if bounds.low:
        vector = hardshrink(vector, following(bounds.low, -math.inf))
    return vector if bounds.high is None else vector - hardshrink(vector, bounds.high)


def following(value: float, towards: float = math.inf) -> float:
    """The float32 number next to a float32 number."""
    return torch.nextafter(torch.tensor(value), torch.tensor(towards)).item()
