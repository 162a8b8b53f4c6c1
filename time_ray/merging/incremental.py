"""A merge of experts that arrive over time: adding one costs reading it, whatever came before."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from time_ray.merging import compatibility
from time_ray.merging.declaration import TechniqueLike
from time_ray.merging.engine import (
    MergePlan,
    NotFinite,
    TotalsAccumulator,
    finite_values,
    is_finite,
    not_finite_error,
    overflows,
)
from time_ray.merging.errors import MergeError, TechniqueError
from time_ray.merging.in_memory import MemoryOutput, Weights, counters, expert_ids, plan_merge, result_dtype, with_lines
from time_ray.merging.models import ModelLike
from time_ray.merging.opening import open_model
from time_ray.merging.pieces import Expert, Piece, State
from time_ray.merging.rule import FinishContext


class Fold:
    """A merge so far. Its memory is the technique's state (`Technique.state`), not the experts."""

    def __init__(self, plan: MergePlan) -> None:
        self.plan = plan
        self.pieces = list(plan.pieces())
        self.states: list[State | None] = [None] * len(self.pieces)
        self.experts: list[Expert] = []
        self.counters: Weights = {}
        """Those of the newest expert."""
        self.broken: TechniqueError | None = None
        """What a technique from outside did to the states: they can no longer be trusted."""

    def add(self, expert: ModelLike, id: str | None = None) -> None:  # noqa: A002 - the word of the interface
        """The fold holds this expert, too. `id` names its random draws (default: its position "1", "2", ...).

        MergeError lists every fault; the fold is then as it was. After a TechniqueError it refuses all further work.
        """
        number = len(self.experts) + 1
        names = expert_ids([*(one.id for one in self.experts), str(number) if id is None else id], number)
        model = open_model(expert, f"expert {number}", self.plan.base)
        MergeError.unless_none(compatibility.faults(self.plan.base, [model]))
        try:
            for piece in self.pieces:
                if self.plan.rule.selection is None or self.plan.rule_for(piece) is not self.plan.rule:
                    finite_values(model, piece)  # all others are looked at for their bounds
            bounded = self.plan.with_bounds(model, Expert(number, names[-1]))
        except NotFinite:
            raise not_finite_error([self.plan.base, model]) from None
        with self.unbroken():
            for index, piece in enumerate(self.pieces):
                base = self.plan.read(self.plan.base, piece, check=False)
                state = self.plan.add(self.taken_up(index), model, bounded, piece, base, check=False)
                self.states[index] = self.put_by(state)
        self.experts.append(bounded)
        self.counters = counters(model, self.plan.base)

    @property
    def num_bytes(self) -> int:
        """Memory that its state takes: as many times the model's as `Technique.state` says, in float32."""
        return sum(tensor.nbytes for state in self.states for tensor in state or ())

    def result(self) -> Weights:
        """The merge of the experts added so far, equal to the bit to merging them at once; adding may continue."""
        MergeError.unless_none(self.plan.rule.faults(len(self.experts)))
        with self.unbroken():
            return self.finished()

    def finished(self) -> Weights:
        """Every piece is finished."""
        accumulator, output = TotalsAccumulator(), MemoryOutput(self.plan, self.counters)
        overflowed = dict[str, None]()
        for piece, state in self.folded():
            accumulator.add(self.plan.rule_for(piece).partial_totals(state, piece))
        totals = accumulator.result()
        for piece, state in self.folded():
            base = self.plan.read(self.plan.base, piece, check=False)
            context = FinishContext(base, piece, self.experts, totals)
            merged = self.plan.rounded(self.plan.rule_for(piece).finish(state, context), piece)
            if not is_finite(merged):
                overflowed[piece.name] = None
            output.write(piece, merged)
        MergeError.unless_none(overflows(list(overflowed), self.plan))
        return output.whole()

    def folded(self) -> Iterator[tuple[Piece, State]]:
        """Every piece with its state, where the arithmetic is done."""
        for index, piece in enumerate(self.pieces):
            state = self.taken_up(index)
            if state is not None:
                yield piece, state

    def taken_up(self, index: int) -> State | None:
        """The state of a piece, where the arithmetic is done."""
        state = self.states[index]
        return None if state is None else [self.plan.on_device(values) for values in state]

    def put_by(self, state: State) -> State:
        """The state where it rests between calls: in main memory, unless the arithmetic is done where the base is."""
        return state if self.plan.device is None else [values.cpu() for values in state]

    def move_to(self, device: str | torch.device) -> None:
        """The arithmetic is done there from now on."""
        self.plan.device = torch.device(device)

    @contextmanager
    def unbroken(self) -> Iterator[None]:
        """A technique that fails inside has failed for good: some states may hold an expert that others do not."""
        if self.broken:
            raise self.broken
        try:
            yield
        except TechniqueError as error:
            self.broken = error
            raise


def fold(
    technique: TechniqueLike,
    base: ModelLike,
    *,
    lines: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    **params: Any,
) -> Fold:
    """A merge to which experts are added over time: `.add(expert, id=None)`, and `.result()` at any time.

    `device`: where the arithmetic is done, piece by piece; the state rests in main memory, and results lie where the
    base does. Without, all is where the base is.
    """
    plan = plan_merge(base, technique, with_lines(params, lines), result_dtype(dtype), device)
    try:
        for piece in plan.pieces():
            finite_values(plan.base, piece)
    except NotFinite:
        raise not_finite_error([plan.base]) from None
    return Fold(plan)
