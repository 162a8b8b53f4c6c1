"""The metric points of a cell: what it scores after every task, what that cost, and how its trainings went.

A point is the same row in MLflow whenever the same value is logged at the same step, as its time follows from the step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from time_ray.core.keys import key_of
from time_ray.core.loss_curve import thinned
from time_ray.core.metrics import METRICS, OF_THE_PAPER, metrics_version
from time_ray.core.statistics import deviation, mean
from time_ray.results import CellResult, TaskResult
from time_ray.tracking.names import metric_key

TASKS_DONE = "tasks_done"
_VERSION = 2  # bump when runs of cells lack points, or parameters, that they would get now
_MEASURED = ("seconds/", "performance/")  # another run of the same has other values
_MOST_LOSSES = 100  # of a run, of all its tasks together: so many cost less than a hundredth of the quickstart


class Point(NamedTuple):
    """A value at a step; its time is that of the run's start, and so many milliseconds."""

    key: str
    value: float
    step: int

    def metric(self, start: int, **more: Any) -> Any:
        """It as MLflow takes it."""
        from mlflow.entities import Metric

        return Metric(self.key, self.value, start + self.step, self.step, **more)


def points_version() -> str:
    """A key of all that a cell's run has: another one as soon as there is more, or a metric is computed differently."""
    return key_of("points", _VERSION, metrics_version())


def titles() -> list[str]:
    """The keys of all metrics."""
    return [metric_key(metric.title) for metric in METRICS.values()]


def scores(row: TaskResult) -> dict[str, float]:
    """Every metric that is defined after this task, by its key."""
    found = ((metric_key(METRICS[name].title), value) for name, value in row.scores.items())
    return {key: round(value, 4) for key, value in found if value is not None}  # the UI shows all digits


def accuracies(row: TaskResult) -> dict[str, float]:
    """Percent by dataset: of what the stream teaches, and of what is held out."""
    history = row.history
    owners = {**dict.fromkeys(history.evaluation, "retention"), **dict.fromkeys(history.adaptation, "adaptation")}
    return {metric_key(name, _role(owners, name)): round(value, 4) for name, value in row.accuracy.items()}


def of_row(row: TaskResult) -> list[Point]:
    """All points of a task; the last one says that it is done, and counts what is there."""
    groups: dict[str, Mapping[str, float]] = {"seconds": {**row.seconds, **row.spent}, "performance": row.performance}
    measured = {
        metric_key(name, group): round(value, 4) for group, values in groups.items() for name, value in values.items()
    }
    known = {**scores(row), **accuracies(row), **measured, TASKS_DONE: float(row.task)}
    return [Point(key, value, row.task) for key, value in known.items()]


def of_training(result: CellResult, row: TaskResult) -> list[Point]:
    """Loss and learning rate in the training of a task, by the optimiser's steps over all tasks."""
    trainings = result.cell.setting.trainings
    before = sum(training.steps for training in trainings[: row.task - 1])
    kept = thinned(row.curve, max(2, _MOST_LOSSES // len(trainings)))
    return [
        Point(metric_key(name, "training"), value, before + point.step)
        for point in kept
        for name, value in (("loss", point.loss), ("lr", point.lr))
    ]


def of_rows(result: CellResult, rows: Sequence[TaskResult]) -> list[Point]:
    """All points of these rows, each row's last."""
    return [point for row in rows for point in (*of_training(result, row), *of_row(row))]


def added(result: CellResult, rows: Sequence[TaskResult]) -> list[Point]:
    """Those points that a run of an earlier version may lack, and whose values nothing changes."""
    everything = of_rows(result, rows)
    others = set(titles())
    return [point for point in everything if point.key not in others and not point.key.startswith(_MEASURED)]


def outdated(rows: Sequence[TaskResult], history: Callable[[str], Sequence[Any]]) -> Iterator[tuple[Point, bool]]:
    """Scores that a run lacks since metrics were added, or has computed differently, and whether it has an earlier one.

    Args:
        rows: whose scores were logged once.
        history: gives all points of a metric, by its key.

    """
    for key in titles():
        there = {point.step: point.value for point in sorted(history(key), key=attrgetter("timestamp"))}
        for row in rows:
            value = scores(row).get(key)
            if value is not None and there.get(row.task) != value:
                yield Point(key, value, row.task), row.task in there


def over_seeds(results: Sequence[CellResult]) -> list[Point]:
    """Means over seeds of all that was scored after every task, and sample deviations of the paper's metrics."""
    found = []
    for rows in zip(*(result.rows for result in results), strict=False):
        together = [{**scores(row), **accuracies(row)} for row in rows]
        common = [key for key in together[0] if all(key in one for one in together)]
        values = {key: [one[key] for one in together] for key in common}
        known = {key: mean(each) for key, each in values.items()}
        for title in (metric_key(METRICS[name].title) for name in OF_THE_PAPER):
            sd = deviation(values[title]) if title in values else None
            known |= {} if sd is None else {f"{title}_sd": sd}
        known[TASKS_DONE] = float(rows[0].task)
        found += [Point(key, round(value, 4), rows[0].task) for key, value in known.items()]
    return found


def _role(owners: Mapping[str, str], name: str) -> str:
    """The group of a dataset's name, or of what is scored of it besides, as in `NAME/r1`."""
    while name not in owners and "/" in name:
        name = name.rpartition("/")[0]
    return owners[name]
