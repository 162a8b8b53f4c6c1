"""The units of work of a merge: runs of elements, the experts they come from, and the state folded so far."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

State = list[Tensor]
"""What a rule remembers of the experts so far for one piece; it belongs to the fold and may change in place."""
STATISTICS = ("running_mean", "running_var")
"""What torch calls BatchNorm's running statistics."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as its header describes it."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its number of elements."""
        return prod(self.shape)

    @property
    def merged(self) -> bool:
        """Whether it is merged; integers and truth values are copied."""
        return self.dtype.is_floating_point

    @property
    def precision(self) -> torch.dtype:
        """What its arithmetic is done in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def counts(self) -> bool:
        """Whether it is a counter, such as BatchNorm's `num_batches_tracked`: one integer."""
        return not self.merged and not self.shape and self.dtype != torch.bool and not self.dtype.is_complex

    @property
    def is_statistic(self) -> bool:
        """Whether it is a running mean or a running variance of BatchNorm."""
        return self.merged and self.name.rpartition(".")[2] in STATISTICS

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Piece:
    """The elements from start to stop of one tensor, in row-major order."""

    entry: TensorEntry
    start: int
    stop: int
    order: int
    """The tensor's place in the model."""

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.entry.name


@dataclass(frozen=True, slots=True)
class Bounds:
    """The magnitudes that survive a trim: from low to high, both included; None is no bound.

    Of elements at `low` only those up to the place `last` = (tensor, element) survive, where it is given.
    """

    low: float | None = None
    high: float | None = None
    nothing: bool = False
    last: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Expert:
    """What a rule may know of an expert: its number from 1, its identity, and the trims that its own values imply."""

    number: int
    id: str
    running: bool = False
    """It is not an expert but the running merge of a temporal loop."""
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """By scope."""


def cut(entries: Sequence[TensorEntry], size: int | None) -> Iterator[Piece]:
    """The pieces of every merged tensor in order: at most `size` elements each, or whole tensors."""
    for order, entry in enumerate(entries):
        if not entry.merged:
            continue
        step = size or entry.size
        for start in range(0, entry.size, max(step, 1)):
            yield Piece(entry, start, min(start + step, entry.size), order)
