"""What a technique is made of: a fold over the experts of one piece of the model."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from time_ray.merging.pieces import Expert, Piece, State
from time_ray.merging.selection import Selection

Totals = Mapping[str, Sequence[float]]
"""By key, the sums over all pieces of what `Rule.tally` says of each."""


class Visit(NamedTuple):
    """An expert's values of a piece, as they come to the fold."""

    expert: Tensor
    base: Tensor
    piece: Piece
    who: Expert

    def vector(self) -> Tensor:
        """The task vector, a new tensor."""
        return self.expert - self.base


@dataclass(frozen=True, slots=True)
class End:
    """What is known of a piece when its merge is asked for."""

    base: Tensor
    piece: Piece
    count: int
    """How many experts were added."""
    totals: Totals


class Rule(ABC):
    """A fold: `add` each expert's values of a piece to a state, `finish` at any time.

    Tensors are flat and in the precision of the arithmetic (float32; float64 for float64 tensors). `add` owns the
    state and changes neither the expert nor the base; `finish` changes nothing.
    """

    whole: bool = False
    """Pieces must be whole tensors."""
    scalars: "Rule | None" = None
    """The rule of 0-d tensors; None: they are elements like all others."""
    retain: bool = False
    """Folding costs so much that the states are worth keeping in memory."""
    carries: bool = False
    """A NaN or Inf of any expert is one in what `finish` returns."""
    selection: Selection | None = None
    """The thresholds that must be known of each expert before it is added."""

    @abstractmethod
    def add(self, state: State | None, visit: Visit) -> State:
        """The state that also holds this expert; None is the state before the first."""

    @abstractmethod
    def finish(self, state: State, end: End) -> Tensor:
        """The merged values so far."""

    def tally(self, state: State, piece: Piece) -> tuple[str, list[float]] | None:
        """What this piece adds to the totals that `finish` may need, and under which key."""
        del state, piece
        return None

    def settled(self, state: State) -> bool:
        """Whether `finish` needs no totals for this piece."""
        del state
        return True

    def faults(self, count: int) -> Iterator[str]:
        """What is wrong with a merge of so many experts."""
        if count < 1:
            yield "experts: none is given; give at least one"


class VectorRule(Rule):
    """A rule on task vectors: result = base + factor · merged vector."""

    def __init__(self, scaling: float | None, factors: Mapping[str, float] | None) -> None:
        """`scaling` None is 1 / number of experts; `factors` (LiNeS, by tensor) replace it."""
        self.scaling = scaling
        self.factors = factors

    def factor(self, at: Piece, count: int) -> float:
        """The factor of the merged vector in this piece."""
        if self.factors is not None:
            return self.factors[at.name]
        return 1.0 / count if self.scaling is None else self.scaling

    def finish(self, state: State, end: End) -> Tensor:
        """The base moved by the scaled merged vector."""
        return torch.mul(self.vector(state, end), self.factor(end.piece, end.count)).add_(end.base)

    @abstractmethod
    def vector(self, state: State, end: End) -> Tensor:
        """The merged task vector before scaling."""
