"""Averages of weights: equal, weighted, by recency, pairwise.

Model soups (arXiv:2203.05482); the schedules are those of TIME (arXiv:2412.06712).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count as naturals

import torch
from torch import Tensor

from time_ray.merging.pieces import State
from time_ray.merging.rule import End, Rule, Visit

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

    def add(self, state: State | None, visit: Visit) -> State:
        """State: Σ w_i θ_i."""
        weight = self.weight(visit.who.number)
        if state is None:
            return [visit.expert * weight]
        if self.decay != 1:
            state[0].mul_(self.decay)
        state[0].add_(visit.expert if weight == 1 else visit.expert * weight)
        return state

    def finish(self, state: State, end: End) -> Tensor:
        """The weighted mean."""
        total = 0.0
        for number in range(1, end.count + 1):
            total = total * self.decay + self.weight(number)
        return state[0] / total


class ListedAverage(Average):
    """An average whose weights are a list, oldest first."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__(lambda number: weights[number - 1] if number <= len(weights) else 0.0)
        self.weights = weights

    def faults(self, count: int) -> Iterator[str]:
        """Also: as many weights as experts."""
        yield from super().faults(count)
        if count != len(self.weights):
            yield f"average: {len(self.weights)} weights for {count} experts; give one weight per expert, oldest first"


class Pair(Average):
    """(1 − weight) · older + weight · newer."""

    def __init__(self, weight: float) -> None:
        super().__init__(lambda number: weight if number == 2 else 1 - weight)

    def finish(self, state: State, end: End) -> Tensor:
        """The weighted sum: its weights sum to 1 already."""
        del end
        return state[0].clone()

    def faults(self, count: int) -> Iterator[str]:
        """Also: exactly two models."""
        yield from super().faults(count)
        if count != 2:
            yield f"weight: it is the share of the newer of two models, and {count} are given; leave it out or use ema"


class ReversedAverage(Rule):
    """A schedule read backwards: no weight is known before the number of experts is, so the state is all of them."""

    def __init__(self, weight: Callable[[int], float]) -> None:
        self.weight = weight

    def add(self, state: State | None, visit: Visit) -> State:
        """State: every expert."""
        return [*(state or ()), visit.expert.clone()]

    def finish(self, state: State, end: End) -> Tensor:
        """The weighted mean, the oldest heaviest."""
        merged = torch.zeros_like(end.base) if end.count > 1 else state[0].clone()
        if end.count > 1:
            for number, expert in zip(naturals(end.count, -1), state, strict=False):
                merged.add_(expert * self.weight(number))
            merged.div_(sum(self.weight(number) for number in range(end.count, 0, -1)))
        return merged


def average(weights: str | list[float] | None = None, weight: float | None = None) -> Rule:
    """The rule for these parameters of `average`."""
    if weight is not None:
        return Pair(weight)
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
