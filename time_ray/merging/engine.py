"""The one engine: folds experts piece by piece, from memory or disk, into memory or disk."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from time_ray.merging.average import Average
from time_ray.merging.compatibility import not_finite
from time_ray.merging.errors import MergeError
from time_ray.merging.models import Model
from time_ray.merging.pieces import Expert, Piece, State, TensorEntry, cut
from time_ray.merging.reductions import exact_sum
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule, Totals
from time_ray.merging.selection import find_bounds, histograms

CHUNK = 1 << 18
"""Elements folded together: what a core's cache holds of base, expert and state."""
DEVICE_CHUNK = 1 << 24
"""The same on an accelerator, where each step costs a launch."""

T = TypeVar("T")

HELD_BYTES = 31 << 20
"""Bytes; the C library learns from blocks up to 32 MiB."""

DtypeOf = Callable[[TensorEntry], torch.dtype]
"""The dtype of a merged tensor of the result, from the base's entry."""

Sink = Callable[[Piece, Tensor], None]
"""Takes the merged values of a piece."""


def base_dtype(entry: TensorEntry) -> torch.dtype:
    """As the base has it."""
    return entry.dtype


def precision(entry: TensorEntry) -> torch.dtype:
    """As it comes out of the arithmetic."""
    return entry.precision


class NotFinite(Exception):  # noqa: N818 - a signal: the engine answers it with a search for all of them
    """Some value of some model is NaN or Inf."""


def piece_values(model: Model, piece: Piece) -> Tensor:
    """The values of a piece in the precision of the arithmetic, whatever the model has them in."""
    return model.read(piece.entry, piece.start, piece.stop).to(piece.entry.precision)


def is_finite(found: Tensor) -> bool:
    """Whether no value is NaN or Inf."""
    # A sum over NaN or Inf is never finite; a sum that is not may still be an overflow of large numbers.
    return math.isfinite(found.sum().item()) or bool(found.isfinite().all())


def finite_values(model: Model, piece: Piece) -> Tensor:
    """The values of a piece in the precision of the arithmetic; NotFinite if one is NaN or Inf."""
    found = piece_values(model, piece)
    if not is_finite(found):
        raise NotFinite
    return found


@dataclass
class TotalsAccumulator:
    """Sums over pieces, by key; exact, so their order does not matter."""

    parts: dict[str, list[list[float]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, partial: tuple[str, list[float]] | None) -> None:
        """Count one piece."""
        if partial:
            with self.lock:
                self.parts.setdefault(partial[0], []).append(partial[1])

    def result(self) -> dict[str, list[float]]:
        """The sums."""
        return {key: [exact_sum(column) for column in zip(*rows, strict=True)] for key, rows in self.parts.items()}


def hold_freed_memory() -> None:
    """Memory that is freed stays with the process (up to twice the size of the largest block that glibc has unmapped).

    Otherwise every buffer of every chunk is mapped and zeroed anew, which costs several times the arithmetic.
    """
    torch.empty(HELD_BYTES, dtype=torch.uint8)


@dataclass
class MergePlan:
    """A base, a rule and how the base is cut into pieces."""

    base: Model
    rule: Rule
    chunk: int | None = CHUNK
    """Elements of a piece at most; None: whole tensors."""
    threads: int = 1
    on_read: Callable[[Piece], None] = lambda _: None
    """Called whenever a piece of a model has been read."""
    dtype_of: DtypeOf = base_dtype
    """The dtype of each merged tensor of the result."""
    statistics: Rule = field(default_factory=Average)
    """The rule of BatchNorm's running statistics (see `batch_norm`)."""
    device: torch.device | None = None
    """Where the arithmetic is done; None: where the base is."""

    def __post_init__(self) -> None:
        hold_freed_memory()

    def pieces(self) -> Iterator[Piece]:
        """The pieces of the model, in order."""
        return cut(self.base.entries, self.chunk)

    def output_entries(self) -> tuple[TensorEntry, ...]:
        """The tensors of the result."""
        return tuple(replace(e, dtype=self.dtype_of(e)) if e.merged else e for e in self.base.entries)

    def rounded(self, merged: Tensor, piece: Piece) -> Tensor:
        """Merged values in the dtype of the result."""
        return merged.to(self.dtype_of(piece.entry))

    def rule_for(self, piece: Piece) -> Rule:
        """The rule of a piece: running statistics have their own, and 0-d tensors may have theirs."""
        if piece.entry.is_statistic:
            return self.statistics
        return self.rule if piece.entry.shape else self.rule.scalars or self.rule

    def read(self, model: Model, piece: Piece, *, check: bool = True) -> Tensor:
        """The values of a piece of a model; `check`: NotFinite if one is NaN or Inf."""
        found = self.on_device(finite_values(model, piece) if check else piece_values(model, piece))
        self.on_read(piece)
        return found

    def on_device(self, values: Tensor) -> Tensor:
        """The values where the arithmetic is done."""
        return values if self.device is None else values.to(self.device)

    def for_each(self, work: Callable[[T], None], items: Iterator[T]) -> None:
        """The work is done for every item, by as many threads as the plan says; the first error ends it."""
        if self.threads == 1:
            for item in items:
                work(item)
            return
        lock, ended = threading.Lock(), threading.Event()

        def take() -> None:
            while not ended.is_set():
                with lock:
                    item = next(items, None)
                if item is None:
                    return
                work(item)

        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for future in as_completed([pool.submit(take) for _ in range(self.threads)]):
                    future.result()
            finally:
                ended.set()

    def magnitude_histograms(self, model: Model) -> dict[str, Tensor]:
        """The histograms of an expert's magnitudes by scope (see `analysis`)."""
        selection = self.rule.selection
        if selection is None:
            return {}
        return histograms(lambda: self.magnitudes(model), selection.scope)

    def magnitudes(self, model: Model) -> Iterator[tuple[Piece, Tensor]]:
        """|expert − base| of every piece the rule trims, as float32."""
        for piece in self.pieces():
            if self.rule_for(piece) is self.rule:
                base = self.read(self.base, piece)
                yield piece, (self.read(model, piece).to(base.device) - base).abs_().float()

    def with_bounds(self, model: Model, expert: Expert, counts: Mapping[str, Tensor] | None = None) -> Expert:
        """The expert with the bounds that its values imply; `counts` are its histograms where they are known."""
        selection = self.rule.selection
        if selection is None:
            return expert
        counts = counts or self.magnitude_histograms(model)
        return replace(expert, bounds=find_bounds(selection, counts, lambda: self.magnitudes(model)))

    def add(
        self, state: State | None, model: Model, expert: Expert, piece: Piece, base_values: Tensor, *, check: bool
    ) -> State:
        """The state of a piece that also holds this expert; `check`: NotFinite if one of its values is NaN or Inf."""
        found = self.read(model, piece, check=check)
        if found.device != base_values.device:
            found = found.to(base_values.device)
        return self.rule_for(piece).add(state, ExpertPiece(found, base_values, piece, expert))


@dataclass
class Merger:
    """Merges experts that are all there, each piece in one go."""

    plan: MergePlan
    models: Sequence[Model]
    experts: Sequence[Expert]
    sink: Sink
    totals: TotalsAccumulator = field(default_factory=TotalsAccumulator)
    waiting: dict[Piece, State | None] = field(default_factory=dict)
    """Pieces that wait for the totals, and their states where folding again would cost much."""
    overflowed: dict[str, int] = field(default_factory=dict)
    """Tensors that are too large for the dtype of the result, and their places in the model."""

    def run(self) -> None:
        """Every piece is merged and given to the sink; MergeError names every tensor that overflows."""
        self.plan.for_each(self.merge_or_wait, self.plan.pieces())
        if self.waiting:
            totals = self.totals.result()
            waiting = sorted(self.waiting, key=position)
            self.plan.for_each(lambda piece: self.merge_waiting(piece, totals), iter(waiting))
        MergeError.unless_none(overflows(sorted(self.overflowed, key=self.overflowed.__getitem__), self.plan))

    def fold(self, piece: Piece, base: Tensor) -> State:
        """The state of a piece after all experts."""
        state: State | None = None
        check = not self.plan.rule_for(piece).carries
        for model, expert in zip(self.models, self.experts, strict=True):
            state = self.plan.add(state, model, expert, piece, base, check=check)
        if state is None:
            raise AssertionError
        return state

    def finish(self, piece: Piece, state: State, context: FinishContext) -> None:
        """The sink has the merged values; NotFinite if an expert's NaN or Inf has come this far."""
        rule = self.plan.rule_for(piece)
        merged = self.plan.rounded(rule.finish(state, context), piece)
        if not is_finite(merged):
            for model in self.models if rule.carries else ():
                finite_values(model, piece)
            self.overflowed[piece.name] = piece.order
        self.sink(piece, merged)

    def merge_or_wait(self, piece: Piece) -> None:
        """The piece is merged, or waits for the totals."""
        base = self.plan.read(self.plan.base, piece)
        state, rule = self.fold(piece, base), self.plan.rule_for(piece)
        self.totals.add(rule.partial_totals(state, piece))
        if rule.needs_totals(state):
            self.waiting[piece] = state if rule.retain else None
        else:
            self.finish(piece, state, FinishContext(base, piece, self.experts, {}))

    def merge_waiting(self, piece: Piece, totals: Totals) -> None:
        """A piece that waited is merged."""
        base = self.plan.read(self.plan.base, piece)
        state = self.waiting[piece]
        state = self.fold(piece, base) if state is None else state
        self.finish(piece, state, FinishContext(base, piece, self.experts, totals))


def position(piece: Piece) -> tuple[int, int]:
    """Where a piece is in the model."""
    return piece.order, piece.start


def overflows(names: Sequence[str], plan: MergePlan) -> Iterator[str]:
    """What is wrong with tensors whose merged values are NaN or Inf although no input's are."""
    dtypes = {entry.name: entry.dtype for entry in plan.output_entries()}
    for name in names:
        dtype = str(dtypes[name]).removeprefix("torch.")
        yield f"{name}: the merged values are too large for {dtype}; give a smaller scaling, or another dtype"


def not_finite_error(models: Sequence[Model]) -> MergeError:
    """The error that names every tensor with a NaN or Inf."""
    return MergeError(*not_finite(models))
