"""The loss curve of a training: the loss and the learning rate at some of its steps, evenly spread."""

from collections.abc import Sequence
from typing import NamedTuple

MOST_POINTS = 32  # of a training, however long it is


class LossPoint(NamedTuple):
    """What a training was like at a step, which counts from 1 in its task."""

    step: int
    loss: float
    lr: float


def kept_steps(steps: int) -> frozenset[int]:
    """The steps whose loss is kept: the first, the last, and some evenly between them."""
    if steps <= MOST_POINTS:
        return frozenset(range(1, steps + 1))
    return frozenset(1 + round(index * (steps - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS))


def thinned(curve: Sequence[LossPoint], most: int) -> list[LossPoint]:
    """At most so many of the points, evenly spread, with the last one."""
    stride = -(-len(curve) // most)
    return list(curve[::-1][:: max(1, stride)][::-1])


def written(curve: Sequence[LossPoint]) -> list[list[float]]:
    """The curve as plain JSON values; `read` gives it back."""
    return [[point.step, float(f"{point.loss:.6g}"), float(f"{point.lr:.6g}")] for point in curve]


def read(value: object) -> tuple[LossPoint, ...]:
    """The curve that was written so; empty for an entry of an earlier version, which has none."""
    points: Sequence[Sequence[float]] = value if isinstance(value, list) else ()
    return tuple(LossPoint(int(step), loss, lr) for step, loss, lr in points)
