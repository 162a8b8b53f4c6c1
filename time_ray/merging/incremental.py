"""A merge of experts that arrive over time: adding one costs reading it, whatever came before."""

from collections.abc import Mapping
from typing import Any

from time_ray.merging import compatibility
from time_ray.merging.engine import NotANumber, Plan, Totals, checked, named
from time_ray.merging.errors import MergeError
from time_ray.merging.in_memory import Output, Weights, identities, prepare, with_lines
from time_ray.merging.models import ModelLike, open_model
from time_ray.merging.pieces import Expert, State
from time_ray.merging.rule import End


class Fold:
    """A merge so far. Its memory is the technique's state (`Technique.state`), not the experts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pieces = list(plan.pieces())
        self.states: list[State | None] = [None] * len(self.pieces)
        self.ids: list[str] = []

    def add(self, expert: ModelLike, id: str | None = None) -> None:  # noqa: A002 - the word of the interface
        """The fold holds this expert, too. `id` names its random draws (default: its position "1", "2", ...).

        MergeError lists every fault; the fold is then as it was.
        """
        number = len(self.ids) + 1
        ids = identities([*self.ids, str(number) if id is None else id], number)
        model = open_model(expert, f"expert {number}")
        MergeError.unless_none(compatibility.faults(self.plan.base, [model]))
        try:
            if self.plan.rule.selection is None:
                for piece in self.pieces:
                    checked(model, piece)
            who = self.plan.meet(model, Expert(number, ids[-1]))
        except NotANumber:
            raise named([self.plan.base, model]) from None
        for index, piece in enumerate(self.pieces):
            base = self.plan.read(self.plan.base, piece, check=False)
            self.states[index] = self.plan.add(self.states[index], model, who, piece, base, check=False)
        self.ids = ids

    def result(self) -> Weights:
        """The merge of the experts added so far, equal to the bit to merging them at once; adding may continue."""
        MergeError.unless_none(self.plan.rule.faults(len(self.ids)))
        folded = [(piece, state) for piece, state in zip(self.pieces, self.states, strict=True) if state is not None]
        totals, output = Totals(), Output(self.plan.base)
        for piece, state in folded:
            totals.add(self.plan.rule_of(piece).tally(state, piece))
        sums = totals.sums()
        for piece, state in folded:
            base = self.plan.read(self.plan.base, piece, check=False)
            output.write(piece, self.plan.rule_of(piece).finish(state, End(base, piece, len(self.ids), sums)))
        return output.whole()


def fold(technique: str, base: ModelLike, *, lines: Mapping[str, Any] | None = None, **params: Any) -> Fold:
    """A merge to which experts are added over time: `.add(expert, id=None)`, and `.result()` at any time."""
    plan = prepare(base, technique, with_lines(params, lines))
    try:
        for piece in plan.pieces():
            checked(plan.base, piece)
    except NotANumber:
        raise named([plan.base]) from None
    return Fold(plan)
