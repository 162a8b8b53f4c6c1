"""The table of metrics: what is computed of a cell's accuracies. Results, rankings, tables and MLflow walk it.

KA, ZS and GM are TIME's (https://arxiv.org/abs/2412.06712), forgetting is that of https://arxiv.org/abs/1801.10112.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from time_ray.core.errors import UserError, unknown
from time_ray.core.keys import key_of

log = logging.getLogger(__name__)


class AccuracyHistory(NamedTuple):
    """What a metric is computed of: a cell's accuracies up to a task, and which datasets count for what."""

    accuracies: Sequence[Mapping[str, float]]  # percent, by dataset; after task 0 (the base, untrained), 1, ...
    adaptation: Sequence[str]  # datasets that the stream teaches, whether it has come to them or not
    evaluation: Sequence[str]  # held-out datasets, which no task teaches

    def until(self, task: int) -> "AccuracyHistory":
        """The history as it was after this task."""
        return self._replace(accuracies=self.accuracies[: task + 1])


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that says how good a cell is after a task; None where it is not defined."""

    name: str  # for programs: in JSON, in CSV, after `--by`
    title: str  # for people, in tables and in MLflow
    unit: str  # points are differences of percent
    higher_is_better: bool
    compute: Callable[[AccuracyHistory], float | None]
    version: int | str | None = None  # another one when the same history gives another value; a plugin's digest if None

    def loss(self, value: float | None) -> float:
        """The lower, the better, whatever the metric; what is not defined comes last."""
        if value is None:
            return math.inf
        return -value if self.higher_is_better else value


def knowledge_accumulation(history: AccuracyHistory) -> float | None:
    """Mean accuracy (percent) over the adaptation datasets, learned already or not."""
    return _mean(history.accuracies[-1][name] for name in history.adaptation)


def zero_shot_retention(history: AccuracyHistory) -> float | None:
    """Mean accuracy (percent) over the held-out datasets; None without any."""
    return _mean(history.accuracies[-1][name] for name in history.evaluation)


def geometric_mean(history: AccuracyHistory) -> float | None:
    """sqrt(KA · ZS), in percent; None where one of them is not defined."""
    ka, zs = knowledge_accumulation(history), zero_shot_retention(history)
    return None if ka is None or zs is None else math.sqrt(ka * zs)


def forgetting(history: AccuracyHistory) -> float | None:
    """Best past accuracy less the one now, mean over the adaptation datasets; None at task 0.

    mean over d of (max over s < t of a(s, d)) - a(t, d), in percentage points, with the base as s = 0: what it knew can
    be forgotten, too. Negative where datasets are better than ever.
    """
    *past, now = history.accuracies
    if not past:
        return None
    return _mean(max(accuracy[name] for accuracy in past) - now[name] for name in history.adaptation)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return math.fsum(found) / len(found) if found else None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="ka", title="KA", unit="%", higher_is_better=True, compute=knowledge_accumulation),
        Metric(name="zs", title="ZS", unit="%", higher_is_better=True, compute=zero_shot_retention),
        Metric(name="gm", title="GM", unit="%", higher_is_better=True, compute=geometric_mean),
        Metric(name="forgetting", title="forgetting", unit="points", higher_is_better=False, compute=forgetting),
    )
}
_OWN = frozenset(METRICS)
OF_THE_PAPER = ("ka", "zs", "gm")  # what TIME reports: first wherever metrics are listed


def register(metric: Metric) -> Metric:
    """The metric is computed of every cell from now on. Raises UserError if its name or title is taken.

    Cells that were tracked before have it in MLflow with the next sweep, or `time-ray sync`.
    """
    for one in METRICS.values():
        if metric.name == one.name or metric.title == one.title:
            raise UserError(f"metric '{metric.name}' ({metric.title}): the name or title is taken; give it another")
    METRICS[metric.name] = metric
    return metric


def metric_named(name: str) -> Metric:
    """A metric of the table. Raises UserError, which names the nearest one."""
    if name not in METRICS:
        raise UserError(unknown("metric", name, METRICS))
    return METRICS[name]


def scores(history: AccuracyHistory) -> dict[str, float | None]:
    """Every metric after the last task of the history, by name."""
    return {name: _value(metric, history) for name, metric in METRICS.items()}


def _value(metric: Metric, history: AccuracyHistory) -> float | None:
    """The metric; of one from outside that raises or gives no number there is none, and one line says so."""
    if metric.name in _OWN:
        return metric.compute(history)
    try:
        found: object = metric.compute(history)
    except Exception as error:  # noqa: BLE001 whatever it is, all other metrics are there
        return _not_there(metric, " ".join(f"{type(error).__name__}: {error}".split()))
    if found is None:
        return None
    if isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found):
        return float(found)
    return _not_there(metric, f"gave {found!r}; return a finite number or None")


@cache
def _not_there(metric: Metric, why: str) -> None:
    """Said once a process."""
    code = metric.compute.__code__ if inspect.isfunction(metric.compute) else None
    where = f"{code.co_filename}:{code.co_firstlineno}: " if code else ""
    log.warning("%smetric '%s' is not shown: %s", where, metric.name, why)


def metrics_version() -> str:
    """A key of the whole table: another one as soon as a metric is added or computed differently."""
    return key_of("metrics", {name: metric.version for name, metric in METRICS.items()})
