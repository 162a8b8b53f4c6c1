"""LiNeS (arXiv:2410.17146) without a given α: the authors' α = (‖Σ τ_i‖₁ / ‖τ_merged‖₁) / N.

So the first blocks move by the mean of the task vectors, whatever the technique left of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from time_ray.merging.pieces import Expert, Piece, State
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule, Totals, VectorRule

MAJORITIES = (0.0, 1.0, -1.0)
"""Totals that a rule may ask the sign of before it knows its merged vector."""
NORMS = 1 + len(MAJORITIES)


class OwnAlpha(Rule):
    """A rule whose factors are α + its own, where α follows from the norms of the whole model."""

    def __init__(self, rule: VectorRule) -> None:
        """`rule` has the part of its factors that is not α."""
        self.rule = rule
        self.scalars = rule.scalars
        self.selection = rule.selection
        self.retain = rule.retain

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ τ_i, how many, then the rule's own."""
        vector = new.task_vector()
        if state is None:
            return [vector, torch.ones((), device=vector.device), *self.rule.add(None, new)]
        return [state[0].add_(vector), state[1] + 1, *self.rule.add(state[2:], new)]

    def partial_totals(self, state: State, piece: Piece) -> tuple[str, list[float]]:
        """‖Σ τ_i‖₁, ‖τ_merged‖₁ for each majority, then the rule's own totals."""
        key, own = self.rule.partial_totals(state[2:], piece) or ("", [])
        experts = [Expert(number, "") for number in range(1, int(state[1]) + 1)]
        norms = [length(state[0])]
        for majority in MAJORITIES if own else MAJORITIES[:1]:
            context = FinishContext(state[0], piece, experts, {key: [majority]} if own else {})
            norms.append(length(self.rule.merged_vector(state[2:], context)))
        return key, [*norms, *([norms[1]] * (NORMS - len(norms))), *own]

    def needs_totals(self, state: State) -> bool:
        """Always: norms are of the whole model."""
        del state
        return True

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The base moved by the merged vector times α and the rule's factor."""
        own = {key: row[NORMS:] for key, row in context.totals.items()}
        merged = self.rule.merged_vector(state[2:], replace(context, totals=own))
        factor = alpha_of(context.totals, context.num_experts) + self.rule.factor(context.piece, context.num_experts)
        return torch.mul(merged, factor).add_(context.base_values)

    def faults(self, num_experts: int) -> Iterator[str]:
        """The rule's."""
        return self.rule.faults(num_experts)


def alpha_of(totals: Totals, num_experts: int) -> float:
    """The authors' α from the totals of all pieces; 0 where nothing is merged."""
    merged = sum(row[1 + place_of(row[NORMS:])] for row in totals.values())
    return sum(row[0] for row in totals.values()) / merged / num_experts if merged else 0.0


def place_of(own: Sequence[float]) -> int:
    """The place of the majority that the rule's own total has."""
    return 0 if not own or not own[0] else 1 if own[0] > 0 else 2


def length(vector: Tensor) -> float:
    """‖vector‖₁, in float64."""
    return vector.abs().sum(dtype=torch.float64).item()
