"""Averages of weights: equal, weighted, by recency, pairwise.

Model soups (arXiv:2203.05482); the schedules are those of TIME (arXiv:2412.06712).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count as naturals
from typing import Any

import torch
from torch import Tensor

from time_ray.merging.parameters import are_pairs, of_layer
from time_ray.merging.pieces import Piece, State
from time_ray.merging.rule import ExpertPiece, FinishContext, Rule, weight_faults

POWERS = {"linear": 1.0, "sqrt": 0.5, "quadratic": 2.0, "cubic": 3.0, "fifth": 5.0, "tenth": 10.0}


def schedule(name: str) -> Callable[[int], float]:
    """The weight of the expert with a number from 1, relative to the first's (so the first has exactly 1)."""
    if name == "log":
        return lambda number: math.log(number + 1) / math.log(2)
    return lambda number: number ** POWERS[name]


class Average(Rule):
    """Σ w_i θ_i / Σ w_i, with each w_i known when its expert comes."""

    carries = True

    def __init__(self, weight: Callable[[int], float] = lambda _: 1.0, decay: float = 1.0) -> None:
        """`decay` multiplies all earlier weights whenever an expert is added (an exponential schedule)."""
        self.weight = weight
        self.decay = decay

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: Σ w_i θ_i."""
        weight = self.weight(new.expert.number)
        if state is None:
            return [new.expert_values * weight]
        if self.decay != 1:
            state[0].mul_(self.decay)
        state[0].add_(new.expert_values if weight == 1 else new.expert_values * weight)
        return state

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The weighted mean."""
        total = 0.0
        for number in range(1, context.num_experts + 1):
            total = total * self.decay + self.weight(number)
        return state[0] / total


class ListedAverage(Average):
    """An average whose weights are a list, oldest first."""

    def __init__(self, weights: Sequence[float]) -> None:
        """`weights` may be any floats: a power of 2, which changes no bit of the mean, brings them near 1."""
        _, exponent = math.frexp(max(weights))
        near = [math.ldexp(weight, -exponent) for weight in weights]
        super().__init__(lambda number: near[number - 1] if number <= len(near) else 0.0)
        self.weights = near

    def faults(self, num_experts: int) -> Iterator[str]:
        """Also: as many weights as experts."""
        yield from super().faults(num_experts)
        if num_experts != len(self.weights):
            counts = f"{len(self.weights)} weights for {num_experts} experts"
            yield f"average: {counts}; give one weight per expert, oldest first"


class PairAverage(Average):
    """(1 − weight) · older + weight · newer."""

    def __init__(self, weight: float) -> None:
        super().__init__(lambda number: weight if number == 2 else 1 - weight)

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The weighted sum: its weights sum to 1 already."""
        del context
        return state[0].clone()

    def faults(self, num_experts: int) -> Iterator[str]:
        """Also: exactly two models."""
        yield from super().faults(num_experts)
        yield from weight_faults(num_experts)


class ReversedAverage(Rule):
    """A schedule read backwards: no weight is known before the number of experts is, so the state is all of them."""

    def __init__(self, weight: Callable[[int], float]) -> None:
        self.weight = weight

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: every expert."""
        return [*(state or ()), new.expert_values.clone()]

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """The weighted mean, the oldest heaviest."""
        merged = torch.zeros_like(context.base_values) if context.num_experts > 1 else state[0].clone()
        if context.num_experts > 1:
            for number, expert in zip(naturals(context.num_experts, -1), state, strict=False):
                merged.add_(expert * self.weight(number))
            merged.div_(sum(self.weight(number) for number in range(context.num_experts, 0, -1)))
        return merged


class LayeredAverage(Rule):
    """An average with other weights for each of some patterns of names."""

    def __init__(self, rules: Sequence[tuple[str, Rule]]) -> None:
        self.rules = rules
        self.carries = all(rule.carries for _, rule in rules)

    def rule_of(self, piece: Piece) -> Rule:
        """The rule of a tensor."""
        found: Rule = of_layer(self.rules, piece.name)
        return found

    def add(self, state: State | None, new: ExpertPiece) -> State:
        """State: that of the tensor's rule."""
        return self.rule_of(new.piece).add(state, new)

    def finish(self, state: State, context: FinishContext) -> Tensor:
        """What the tensor's rule makes of it."""
        return self.rule_of(context.piece).finish(state, context)

    def faults(self, num_experts: int) -> Iterator[str]:
        """Those of all rules, each once."""
        yield from dict.fromkeys(fault for _, rule in self.rules for fault in rule.faults(num_experts))


def average(weights: Any = None, weight: float | None = None) -> Rule:
    """The rule for these parameters of `average`."""
    if weight is not None:
        return PairAverage(weight)
    if are_pairs(weights):
        return LayeredAverage([(pattern, weighted(one)) for pattern, one in weights])
    return weighted(weights)


def weighted(weights: str | list[float] | None) -> Rule:
    """The average with these weights in every tensor."""
    if weights is None:
        return Average()
    if isinstance(weights, list):
        return ListedAverage(weights)
    if weights == "exp":
        return Average(decay=0.5)
    if weights == "reverse_exp":
        return Average(lambda number: 0.5 ** (number - 1))
    name = weights.removeprefix("reverse_")
    return Average(schedule(name)) if name == weights else ReversedAverage(schedule(name))
