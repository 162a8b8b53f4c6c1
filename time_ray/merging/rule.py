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
"""By key, the sums over all pieces of what `Rule.partial_totals` says of each."""


class ExpertPiece(NamedTuple):
    """One expert's values of one piece, and the base's."""

    expert_values: Tensor
    base_values: Tensor
    piece: Piece
    expert: Expert

    def task_vector(self) -> Tensor:
        """Expert − base, a new tensor."""
        return self.expert_values - self.base_values


@dataclass(frozen=True, slots=True)
class FinishContext:
    """What is known of a piece when its merge is asked for."""

    base_values: Tensor
    piece: Piece
    experts: Sequence[Expert]
    """Those that were added."""
    totals: Totals

    @property
    def num_experts(self) -> int:
        """How many experts were added."""
        return len(self.experts)


class Rule(ABC):
    """A fold: `add` each expert's values of a piece to a state, `finish` at any time.

    Tensors are flat and in the precision of the arithmetic (float32; float64 for float64 tensors). `add` owns the
    state and changes neither the expert nor the base; `finish` changes nothing.
    """

    scalars: "Rule | None" = None
    """The rule of 0-d tensors; None: they are elements like all others."""
    retain: bool = False
    """Folding costs so much that the states are worth keeping in memory."""
    carries: bool = False
    """A NaN or Inf of any expert is one in what `finish` returns."""
    selection: Selection | None = None
    """The thresholds that must be known of each expert before it is added."""

    @abstractmethod
    def add(self, state: State | None, new: ExpertPiece) -> State:
        """The state that also holds this expert; None is the state before the first."""

    @abstractmethod
    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The merged values so far."""

    def partial_totals(self, state: State, piece: Piece) -> tuple[str, list[float]] | None:
        """What this piece adds to the totals that `finish` may need, and under which key."""
        del state, piece
        return None

    def needs_totals(self, state: State) -> bool:
        """Whether `finish` needs the totals for this piece."""
        del state
        return False

    def faults(self, num_experts: int) -> Iterator[str]:
        """What is wrong with a merge of so many experts."""
        if num_experts < 1:
            yield "experts: none is given; give at least one"


def weight_faults(num_experts: int) -> Iterator[str]:
    """What is wrong with a `weight` in a merge of so many models."""
    if num_experts != 2:
        yield (
            f"weight: it is the share of the newer of two models, and {num_experts} are given; leave it out or use ema"
        )


class VectorRule(Rule):
    """A rule on task vectors: result = base + factor · merged vector."""

    def __init__(self, scaling: float | None, factors: Mapping[str, float | None] | None) -> None:
        """`scaling` None is 1 / number of experts; `factors` (by tensor) replace it, with the same meaning of None."""
        self.scaling = scaling
        self.factors = factors

    def factor(self, piece: Piece, num_experts: int) -> float:
        """The factor of the merged vector in this piece."""
        scaling = self.scaling if self.factors is None else self.factors[piece.name]
        return 1.0 / num_experts if scaling is None else scaling

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The base moved by the scaled merged vector."""
        factor = self.factor(context.piece, context.num_experts)
        return torch.mul(self.merged_vector(state, context), factor).add_(context.base_values)

    @abstractmethod
    def merged_vector(self, state: State, context: FinishContext) -> Tensor:
        """The merged task vector before scaling."""
