"""Results, read back from the store: what every cell scored after every task, and what each stage cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from time_ray.core.grid import Cell
from time_ray.core.metrics import Scores, scores
from time_ray.core.plan import Stored
from time_ray.store.store import Entry, Store


class TaskResult(NamedTuple):
    """One row of a cell: what it serves after a task (0: the base, before any training)."""

    task: int
    scores: Scores
    accuracy: Mapping[str, float]  # percent, by dataset
    seconds: Mapping[str, float]  # cost of each stage where it was first done: init, train, deploy, eval


@dataclass(frozen=True)
class CellResult:
    """A cell with all rows that exist so far."""

    cell: Cell
    rows: tuple[TaskResult, ...]
    final_key: str  # of the deployed model after the last of the rows
    weights: Entry | None  # of that model, if it is kept

    @property
    def done(self) -> bool:
        """Whether every task is scored and the final weights are kept."""
        return len(self.rows) == 1 + len(self.cell.setting.trainings) and self.weights is not None

    @property
    def final(self) -> Scores:
        """Scores after the last task."""
        return self.rows[-1].scores


def stored(store: Store) -> Stored:
    """What the store holds, by two listings."""
    return Stored(store.keys("weights"), store.keys("scores"))


def read_results(cells: Sequence[Cell], store: Store) -> list[CellResult]:
    """Every cell's rows as far as they go, from the store alone."""
    return [_read(cell, store) for cell in cells]


def _read(cell: Cell, store: Store) -> CellResult:
    setting = cell.setting
    rows, final = [], setting.base.key
    base = store.entry("scores", setting.scores_key(setting.base))
    if base is not None:
        rows.append(_row(cell, 0, base, {}))
        for task, expert, deployed, entry in _scored(cell, store):
            rows.append(_row(cell, task, entry, _seconds(store.entry("weights", expert))))
            final = deployed
    return CellResult(cell, tuple(rows), final, store.entry("weights", final))


def _scored(cell: Cell, store: Store) -> Iterator[tuple[int, str, str, Entry]]:
    for step in cell.walk():
        entry = store.entry("scores", cell.setting.scores_key(step.deployed))
        if entry is None or store.entry("weights", step.expert.key) is None:
            return
        yield step.training.task.number, step.expert.key, step.deployed.key, entry


def _row(cell: Cell, task: int, entry: Entry, trained: Mapping[str, float]) -> TaskResult:
    accuracy: Any = entry["accuracy"]
    setting = cell.setting
    points = scores(accuracy, setting.adaptation, setting.evaluation)
    return TaskResult(task, points, accuracy, {**trained, **_seconds(entry)})


def _seconds(entry: Entry | None) -> dict[str, float]:
    found: Any = entry["seconds"] if entry else {}
    return {stage: float(value) for stage, value in found.items()}
