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
from time_ray.merging.pieces import Expert, State
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
                self.states[index] = self.plan.add(self.states[index], model, bounded, piece, base, check=False)
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
        folded = [(piece, state) for piece, state in zip(self.pieces, self.states, strict=True) if state is not None]
        accumulator, output = TotalsAccumulator(), MemoryOutput(self.plan, self.counters)
        overflowed = dict[str, None]()
        for piece, state in folded:
            accumulator.add(self.plan.rule_for(piece).partial_totals(state, piece))
        totals = accumulator.result()
        for piece, state in folded:
            base = self.plan.read(self.plan.base, piece, check=False)
            context = FinishContext(base, piece, self.experts, totals)
            merged = self.plan.rounded(self.plan.rule_for(piece).finish(state, context), piece)
            if not is_finite(merged):
                overflowed[piece.name] = None
            output.write(piece, merged)
        MergeError.unless_none(overflows(list(overflowed), self.plan))
        return output.whole()

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
    **params: Any,
) -> Fold:
    """A merge to which experts are added over time: `.add(expert, id=None)`, and `.result()` at any time."""
    plan = plan_merge(base, technique, with_lines(params, lines), result_dtype(dtype))
    try:
        for piece in plan.pieces():
            finite_values(plan.base, piece)
    except NotFinite:
        raise not_finite_error([plan.base]) from None
    return Fold(plan)
