"""The table of metrics: what is computed of a cell's accuracies. Results, rankings, tables and MLflow walk it.

KA, ZS and GM are TIME's (https://arxiv.org/abs/2412.06712), forgetting is that of https://arxiv.org/abs/1801.10112.
Accuracy by task, backward and forward transfer are those of https://arxiv.org/abs/1706.08840.
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    by_task: Sequence[Sequence[float] | None] = ()  # percent on the classes of each task; after task 0, 1, ...

    def until(self, task: int) -> "AccuracyHistory":
        """The history as it was after this task."""
        return self._replace(accuracies=self.accuracies[: task + 1], by_task=self.by_task[: task + 1])

    def on_tasks(self, after: int) -> Sequence[float] | None:
        """Percent on the classes of each task after so many; None where it is not known, task by task NaN."""
        return self.by_task[after] if self.by_task else None


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
    now = history.accuracies[-1]
    return _mean(now[name] for name in history.adaptation)


def zero_shot_retention(history: AccuracyHistory) -> float | None:
    """Mean accuracy (percent) over the held-out datasets; None without any."""
    now = history.accuracies[-1]
    return _mean(now[name] for name in history.evaluation)


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


def task_accuracy(history: AccuracyHistory) -> float | None:
    """ACC: mean accuracy (percent) over the tasks so far; None at task 0."""
    learned = len(history.accuracies) - 1
    now = history.on_tasks(learned)
    return None if now is None else _mean(_known(now[:learned]))


def backward_transfer(history: AccuracyHistory) -> float | None:
    """BWT: accuracy now less accuracy right after the task, mean over the tasks before the last; None without any.

    mean over s < t of a(t, s) - a(s, s), in percentage points: negative where tasks are forgotten.
    """
    last = len(history.accuracies) - 1
    return _transfer(history, [(last, task) for task in range(1, last)], lambda task: task)


def forward_transfer(history: AccuracyHistory) -> float | None:
    """FWT: accuracy right before the task less that of the base, mean over the tasks after the first; None without any.

    mean over s > 1 of a(s - 1, s) - a(0, s), in percentage points: positive where earlier tasks help later ones.
    """
    last = len(history.accuracies) - 1
    return _transfer(history, [(task - 1, task) for task in range(2, last + 1)], lambda _: 0)


def _transfer(
    history: AccuracyHistory, places: Sequence[tuple[int, int]], before: Callable[[int], int]
) -> float | None:
    """Mean over (after, task) of the accuracy on the task then, less that after another one."""
    gains = []
    for after, task in places:
        later, earlier = history.on_tasks(after), history.on_tasks(before(task))
        if later is None or earlier is None:
            return None
        gains.append(later[task - 1] - earlier[task - 1])
    return _mean(_known(gains))


def _known(values: Iterable[float]) -> Iterator[float]:
    return (value for value in values if not math.isnan(value))


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
        Metric(name="acc", title="ACC", unit="%", higher_is_better=True, compute=task_accuracy),
        Metric(name="bwt", title="BWT", unit="points", higher_is_better=True, compute=backward_transfer),
        Metric(name="fwt", title="FWT", unit="points", higher_is_better=True, compute=forward_transfer),
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


def is_defined(name: str, num_tasks: int, *, held_out: bool) -> bool:
    """Whether a metric has a value after so many tasks, with held-out datasets or without. Of a plugin's: it may have.

    What the accuracies are does not matter for that.
    """
    if name not in _OWN:
        return True
    most = min(num_tasks, 2)
    accuracies = [{"learned": 50.0, "held out": 50.0}] * (most + 1)
    history = AccuracyHistory(accuracies, ["learned"], ["held out"] if held_out else [], [[50.0] * most] * (most + 1))
    return METRICS[name].compute(history) is not None


class Scores(Mapping[str, float | None]):
    """Every metric after the last task of a history, by name, each computed when it is asked for."""

    def __init__(self, history: AccuracyHistory) -> None:
        self._history = history
        self._found: dict[str, float | None] = {}

    def __getitem__(self, name: str) -> float | None:
        if name not in self._found:
            self._found[name] = _value(METRICS[name], self._history)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(METRICS)

    def __len__(self) -> int:
        return len(METRICS)


def scores(history: AccuracyHistory) -> Scores:
    """Every metric after the last task of the history, by name."""
    return Scores(history)


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
