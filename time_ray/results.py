"""Results, read back from the store: what every cell scored after every task, and what each stage cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from time_ray.core.grid import Cell
from time_ray.core.metrics import AccuracyHistory, scores
from time_ray.core.plan import Stored, needs
from time_ray.events import CellFailed
from time_ray.store.store import Entry, Store


@dataclass(frozen=True)
class TaskResult:
    """One row of a cell: what it serves after a task (0: the base, before any training)."""

    task: int
    history: AccuracyHistory  # of the whole cell
    seconds: Mapping[str, float]  # cost of each stage where it was first done: init, train, deploy, eval

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Percent, by dataset."""
        return self.history.accuracies[self.task]

    @cached_property
    def scores(self) -> Mapping[str, float | None]:
        """Every metric of the table, by name; None where it is not defined."""
        return scores(self.history.until(self.task))


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
    def final(self) -> Mapping[str, float | None]:
        """Scores after the last task, by metric."""
        return self.rows[-1].scores


@dataclass
class Outcome:
    """How a sweep ended."""

    results: list[CellResult]
    failures: Mapping[str, CellFailed] = field(default_factory=dict)  # by cell key
    interrupted: bool = False
    tracking_error: str | None = None  # what MLflow lacks, and why
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """130 interrupted, 1 some cell failed, 0 all done."""
        if self.interrupted:
            return 130
        return 0 if all(result.done for result in self.results) else 1


def stored(store: Store) -> Stored:
    """What the store holds, by two listings."""
    return Stored(store.keys("weights"), store.keys("scores"))


def unfinished(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """Cells that are not done. Only what the listings say is there is read, as it may be damaged."""
    have = stored(store)
    return [cell for cell in cells if needs(cell).missing(have) or not _read(cell, store).done]


def read_results(cells: Sequence[Cell], store: Store) -> list[CellResult]:
    """Every cell's rows as far as they go, from the store alone."""
    return [_read(cell, store) for cell in cells]


def _read(cell: Cell, store: Store) -> CellResult:
    setting, final = cell.setting, cell.setting.base.key
    accuracies: list[Any] = []
    seconds: list[dict[str, float]] = []
    for deployed, expert, scored in _scored(cell, store):
        accuracies.append(scored["accuracy"])
        seconds.append({**_seconds(expert), **_seconds(scored)})
        final = deployed
    history = AccuracyHistory(accuracies, setting.adaptation, setting.evaluation)
    rows = tuple(TaskResult(task, history, spent) for task, spent in enumerate(seconds))
    return CellResult(cell, rows, final, store.entry("weights", final))


def _scored(cell: Cell, store: Store) -> Iterator[tuple[str, Entry | None, Entry]]:
    """What is served after each task, by key, with the entries of the expert and of the scores: as far as they go."""
    setting = cell.setting
    base = store.entry("scores", setting.scores_key(setting.base))
    if base is None:
        return
    yield setting.base.key, None, base
    for step in cell.walk():
        scored = store.entry("scores", setting.scores_key(step.deployed))
        expert = store.entry("weights", step.expert.key)
        if scored is None or expert is None:
            return
        yield step.deployed.key, expert, scored


def _seconds(entry: Entry | None) -> dict[str, float]:
    found: Any = entry["seconds"] if entry else {}
    return {stage: float(value) for stage, value in found.items()}
