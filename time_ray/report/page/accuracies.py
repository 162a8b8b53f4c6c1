"""Accuracy by dataset and task as a table: of a cell, mean over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from time_ray.core.statistics import mean
from time_ray.figures.chosen import Chosen
from time_ray.figures.datasets import arrival
from time_ray.results import CellResult

SHADES = 10
EVERY, SOME = "▸", "▹"  # the first classes of a dataset arrive: with every seed, or with some


class Value(NamedTuple):
    """Percent after a task, as text with its shade, and what arrives then."""

    text: str
    shade: int
    arrives: str


class Group(NamedTuple):
    """Datasets of one kind: each with its values after task 0, 1, ..."""

    title: str
    rows: Sequence[tuple[str, Sequence[Value]]]


@dataclass(frozen=True)
class Accuracies:
    """Of one cell: `tasks` are those that the columns are after."""

    name: str
    tasks: range
    groups: Sequence[Group]


def accuracies(one: Chosen) -> Accuracies:
    """The table of a cell that is finished with these seeds."""
    setting, tasks = one.results[0].cell.setting, range(len(one.results[0].rows))
    kinds = {"learned (KA)": setting.adaptation, "held out (ZS)": setting.evaluation}
    groups = [
        Group(kind, [(name, [_value(one.results, name, task) for task in tasks]) for name in names])
        for kind, names in kinds.items()
        if names
    ]
    return Accuracies(one.name, tasks, groups)


def _value(results: Sequence[CellResult], dataset: str, task: int) -> Value:
    percent = mean([result.rows[task].accuracy[dataset] for result in results])
    arrive = [task > 0 and arrival(result.cell.setting, dataset) == task for result in results]
    sign = EVERY if all(arrive) else SOME if any(arrive) else ""
    return Value(f"{percent:.1f}", min(SHADES - 1, int(percent * SHADES / 100)), sign)
