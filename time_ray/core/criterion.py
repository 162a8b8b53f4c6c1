"""What the best is to be best in: a metric, over which of the tasks, and under which floor."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from time_ray.core.errors import UserError
from time_ray.core.metrics import METRICS, AccuracyHistory, Metric, metric_named, scores
from time_ray.core.statistics import mean

Over = Literal["end", "mean", "area"]
Lengths = Literal["best", "one"]

BASE = "base"
_FLOOR = re.compile(r"\s*(?P<metric>\w+)\s*(?P<sign>>=|<=)\s*(?:(?P<number>[-+.\de]+)\s*\*?\s*)?(?P<base>base)?\s*\Z")


@dataclass(frozen=True)
class Floor:
    """A bound that a cell must keep on average over seeds: `zs>=40`, or `zs>=0.95*base` of what the base scores."""

    metric: str
    at_least: bool
    number: float
    of_base: bool
    text: str

    def holds(self, value: float | None, base: float | None) -> bool:
        """Whether it is kept; never where a value is not defined."""
        if value is None or (self.of_base and base is None):
            return False
        bound = self.number * base if self.of_base and base is not None else self.number
        return value >= bound if self.at_least else value <= bound


def read_floor(text: str) -> Floor:
    """The floor that is written so. Raises UserError if it is none, or names no metric."""
    found = _FLOOR.match(text)
    number = _number(found["number"]) if found else None
    if found is None or number is None or not (found["number"] or found["base"]):
        raise UserError(f"--floor '{text}': no floor; write one as in zs>=40 or zs>=0.95*base")
    metric_named(found["metric"])
    return Floor(found["metric"], found["sign"] == ">=", number, found["base"] is not None, text)


def _number(text: str | None) -> float | None:
    try:
        number = 1.0 if text is None else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What ranks cells.

    Attributes:
        by: the metric.
        over: after the last task; its mean over all tasks; or the area under its curve from the base on, per task.
        floor: what a cell must keep besides; it is judged after the last task.
        epsilon: differences that do not matter, in the metric's unit.
        lengths: every cell at its best length where lengths were measured, or all of them as they were served.
        seed: the seed whose weights are the winner's; None: that of the median.

    """

    by: str = "gm"
    over: Over = "end"
    floor: Floor | None = None
    epsilon: float = 1.0
    lengths: Lengths = "best"
    seed: int | None = None

    def __post_init__(self) -> None:
        metric_named(self.by)

    @property
    def metric(self) -> Metric:
        """The metric."""
        return METRICS[self.by]


def value(history: AccuracyHistory, metric: str, over: Over = "end") -> float | None:
    """A metric of a history over its tasks, those after which it is defined; None if it is for none."""
    last = len(history.accuracies) - 1
    if over == "end":
        return scores(history)[metric]
    after: Sequence[int] = range(1, last + 1) if over == "mean" else range(last + 1)
    values = [scores(history.until(task))[metric] for task in after]
    found = [one for one in values if one is not None]
    if over == "area":
        found = [(one + two) / 2 for one, two in pairwise(found)]
    return mean(found) if found else None
