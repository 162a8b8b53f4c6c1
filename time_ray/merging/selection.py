"""Exact order statistics of magnitudes: radix selection on the bits of non-negative float32 numbers.

Non-negative floats sort as their bits do. A histogram of the upper 16 bits (256 KiB, kept beside an expert) says which
bin holds the wanted rank; one look at the elements of that bin says which number it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from time_ray.merging.pieces import Bounds, Piece

BINS = 1 << 15
LOW_BITS = 1 << 16

Magnitudes = Callable[[], Iterable[tuple[Piece, Tensor]]]
"""Reads an expert's |expert − base| once more: pieces in order, flat float32."""


class Selection(ABC):
    """The magnitudes of an expert that survive, by rank within a scope."""

    exact: bool = False
    """Magnitudes equal to the least survivor are told apart by place (first wins); otherwise all of them survive."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What it selects: selections with the same label have the same bounds."""

    @abstractmethod
    def scope(self, name: str) -> str:
        """The scope that a tensor's ranks are counted in."""

    @abstractmethod
    def ranks(self, size: int) -> tuple[int | None, int | None] | None:
        """The 0-based ranks of the least and greatest survivor among `size`.

        None in the pair is no bound; None alone is no survivor.
        """

    @abstractmethod
    def from_towers(self, towers: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The histograms by scope from those by tower; None where they do not follow from them."""


def bit_halves(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and upper 16 bits of each float32 number, as views of int16."""
    pairs = magnitudes.view(torch.int16).view(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def histogram(magnitudes: Tensor) -> Tensor:
    """How often each value of the upper 16 bits occurs (int64 [32768])."""
    return torch.bincount(bit_halves(magnitudes)[1].contiguous(), minlength=BINS)


def locate(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds a 0-based rank, and the rank within that bin."""
    ends = counts.cumsum(0)
    number = int(torch.searchsorted(ends, rank, right=True))
    return number, rank - (int(ends[number - 1]) if number else 0)


def number(upper: int, lower: int) -> float:
    """The float32 number with these bits."""
    return torch.tensor([(upper << 16) | lower], dtype=torch.int32).view(torch.float32).item()


@dataclass
class RankSearch:
    """One rank of one scope on its way from a bin to a number."""

    bin: int
    rank: int
    counts: Tensor = field(default_factory=lambda: torch.zeros(LOW_BITS, dtype=torch.int64))

    def count_bin(self, lower: Tensor, upper: Tensor) -> None:
        """Count the lower bits of the elements in the bin."""
        inside = lower.masked_select(upper == self.bin).to(torch.int32) & (LOW_BITS - 1)
        if inside.numel():
            self.counts += torch.bincount(inside, minlength=LOW_BITS).to("cpu")

    def value(self) -> float:
        """The number at the rank."""
        return number(self.bin, locate(self.counts, self.rank)[0])

    def ties_to_keep(self) -> int:
        """How many numbers equal to the one at the rank come at it or after; 0 where none comes before."""
        lower, before = locate(self.counts, self.rank)
        return int(self.counts[lower]) - before if before else 0


def histograms(read: Magnitudes, scope: Callable[[str], str]) -> dict[str, Tensor]:
    """The histogram of every scope, in one read."""
    counts: dict[str, Tensor] = {}
    for piece, values in read():
        key = scope(piece.name)
        found = histogram(values).to("cpu")
        counts[key] = counts[key].add_(found) if key in counts else found
    return counts


def find_bounds(selection: Selection, counts: Mapping[str, Tensor], read: Magnitudes) -> dict[str, Bounds]:
    """The exact bounds of every scope: one read of the expert, two where ties are told apart by place."""
    made: dict[str, Bounds] = {}
    wanted: dict[str, tuple[RankSearch | None, RankSearch | None]] = {}
    for key, count in counts.items():
        ranks = selection.ranks(int(count.sum()))
        if ranks is None:
            made[key] = Bounds(nothing=True)
        elif ranks != (None, None):
            low, high = (None if rank is None else RankSearch(*locate(count, rank)) for rank in ranks)
            wanted[key] = (low, high)
    if wanted:
        search_bins(selection, wanted, read)
    for key, (low, high) in wanted.items():
        made[key] = Bounds(low.value() if low else None, high.value() if high else None)
    if selection.exact:
        break_ties(selection, {key: low.ties_to_keep() for key, (low, _) in wanted.items() if low}, made, read)
    return made


def search_bins(selection: Selection, wanted: Mapping[str, Iterable[RankSearch | None]], read: Magnitudes) -> None:
    """Every wanted rank has seen the elements of its bin."""
    for piece, values in read():
        for search in wanted.get(selection.scope(piece.name), ()):
            if search:
                search.count_bin(*bit_halves(values))


def break_ties(selection: Selection, spare: dict[str, int], made: dict[str, Bounds], read: Magnitudes) -> None:
    """The bounds name the place of the last survivor where only so many equals (`spare`) may survive."""
    left = {key: count for key, count in spare.items() if count}
    if not left:
        return
    for piece, values in read():
        key = selection.scope(piece.name)
        if left.get(key, 0) < 1:
            continue
        places = values.eq(made[key].low or 0.0).nonzero().flatten()
        if len(places) >= left[key]:
            place = piece.start + int(places[left[key] - 1])
            made[key] = replace(made[key], last=(piece.order, place))
        left[key] -= len(places)
