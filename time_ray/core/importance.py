"""Which axis of a grid matters: the functional ANOVA of a complete grid, which is exact.

A cell's response is a sum of effects, one for every axis, every pair of axes, and so on, each with mean 0 along each of
its axes. So their sums of squares add up to that of all cells.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from time_ray.core.statistics import t_quantile

Values = NDArray[np.float64]
Interval = tuple[float, float]
Effect = tuple[str, ...]  # the axes that it is of

_ORDERS_SHOWN = 3
_ROUNDING = 1e-24  # of the sum of all squares: what rounding leaves of an effect that is none


@dataclass(frozen=True)
class Share:
    """Of the variance between cells: what an axis explains, or the interaction of several.

    The value is that of the mean over the seeds at hand, and what is chance in it is shared out, too: with few seeds,
    noise looks like interactions. The interval is for the share without noise, and may lie below a small value.
    """

    axes: Effect  # none: all interactions of more than three axes together
    value: float
    interval: Interval | None  # None with one seed


@dataclass(frozen=True)
class Ratio:
    """The share of some axes over that of another; None if the other has none."""

    value: float | None
    interval: Interval | None  # None with one seed; it may end at infinity


@dataclass(frozen=True)
class Importance:
    """Shares, single axes first. They sum to 1; if all cells are equal, all are 0."""

    shares: tuple[Share, ...]
    headline: Ratio
    variance: float  # between cells: of their means over seeds


def importance(
    response: Values,
    axes: Sequence[str],
    *,
    strategies: Collection[str] = ("init", "deploy"),
    technique: str = "technique",
    level: float = 0.95,
) -> Importance:
    """The share of every axis and interaction, and the paper's claim as one number.

    The headline is the share of the strategies and of the interactions among them, over the share of the technique and
    of all its interactions, whatever their order.

    Args:
        response: [levels of axis 1, ..., levels of axis k, seeds], of a complete grid.
        axes: the names of the k axes.
        strategies: names of axes; one that the grid lacks explains nothing.
        technique: the name of an axis, likewise.
        level: of the intervals. They are Tukey's, of the jackknife over seeds with Student's t: resampled seeds
            (a bootstrap) would count noise twice, and hold the truth far less often than they say.

    """
    seeds = response.shape[-1]
    weights = _weights(seeds)
    sums = {
        effect: np.einsum("rs,st,rt->r", weights, square, weights)
        for effect, square in _sums_of_squares(response, axes).items()
    }

    def together(effects: Collection[Effect]) -> Values:
        return sum((sums[effect] for effect in effects), np.zeros(len(weights)))

    total = together(sums)
    groups: dict[Effect, list[Effect]] = {effect: [effect] for effect in sums if len(effect) <= _ORDERS_SHOWN}
    if rest := [effect for effect in sums if len(effect) > _ORDERS_SHOWN]:
        groups[()] = rest
    return Importance(
        shares=tuple(Share(name, *_part(together(group), total, level)) for name, group in groups.items()),
        headline=_ratio(
            together([effect for effect in sums if set(effect) <= set(strategies)]),
            together([effect for effect in sums if technique in effect]),
            level,
        ),
        variance=float(total[0]) * seeds / response.size,
    )


def _weights(seeds: int) -> Values:
    """Weights of the seeds: first the same for all, then, where there are more than one, without each of them."""
    if seeds == 1:
        return np.ones((1, 1))
    return np.vstack([np.full(seeds, 1 / seeds), (1 - np.eye(seeds)) / (seeds - 1)])


def _sums_of_squares(response: Values, axes: Sequence[str]) -> dict[Effect, Values]:
    """For each effect a matrix Q [seeds, seeds]: its sum of squares in seeds averaged with weights w is w' Q w."""
    *levels, seeds = response.shape
    parts: dict[Effect, Values] = {(): response}
    for number, name in enumerate(axes):
        means = {effect: part.mean(axis=number, keepdims=True) for effect, part in parts.items()}
        parts = means | {(*effect, name): part - means[effect] for effect, part in parts.items()}
    nothing = _ROUNDING * float((response**2).sum())
    cells = int(np.prod(levels))
    squares = {}
    for effect in sorted(parts, key=lambda effect: (len(effect), [list(axes).index(name) for name in effect])):
        part = parts[effect].reshape(-1, seeds)
        square = part.T @ part * (cells / len(part))
        squares[effect] = square if np.trace(square) > nothing else np.zeros_like(square)
    del squares[()]
    return squares


def _part(some: Values, whole: Values, level: float) -> tuple[float, Interval | None]:
    """The part of a whole, and an interval of what it is on average, from all seeds and from all but each of them."""
    value, *without = np.divide(some, whole, out=np.zeros_like(whole), where=whole > 0).tolist()
    seeds = len(without)
    if not seeds:
        return value, None
    single = seeds * value - (seeds - 1) * np.array(without)
    reach = t_quantile((1 + level) / 2, seeds - 1) * float(single.std(ddof=1)) / seeds**0.5
    low, high = np.clip([single.mean() - reach, single.mean() + reach], 0.0, 1.0).tolist()
    return value, (low, high)


def _ratio(some: Values, other: Values, level: float) -> Ratio:
    """As p / (1 - p), where p is the part of both together: its interval has sound ends whatever the ratio."""
    if other[0] == 0:
        return Ratio(None, None)
    part, interval = _part(some, some + other, level)
    return Ratio(_odds(part), None if interval is None else (_odds(interval[0]), _odds(interval[1])))


def _odds(part: float) -> float:
    return part / (1 - part) if part < 1 else math.inf
