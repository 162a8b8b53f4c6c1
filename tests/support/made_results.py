"""Results without a store: cells whose accuracies are as they are told."""

from collections.abc import Callable, Iterable, Mapping

from time_ray.core.grid import Cell
from time_ray.core.metrics import AccuracyHistory
from time_ray.results import CellResult, TaskResult

Scorer = Callable[[Cell, int, float], Mapping[str, float]]  # percent by dataset: of a cell after a task, at a length
SECONDS = {"init": 0.1, "train": 2.0, "deploy": 0.3, "eval": 1.0}
SIZE = 4_000_000  # bytes of weights


def finished(cells: Iterable[Cell], scorer: Scorer) -> list[CellResult]:
    """Every cell is done, at all lengths that it asks for."""
    return [_result(cell, scorer) for cell in cells]


def unfinished(result: CellResult, rows: int = 0) -> CellResult:
    """The cell as it was after so many rows."""
    return CellResult(result.cell, result.rows[:rows], "", None)


def _result(cell: Cell, scorer: Scorer) -> CellResult:
    setting = cell.setting
    deployed = [setting.base, *(step.deployed for step in cell.walk())]
    accuracies = [scorer(cell, task, 1.0) for task in range(len(deployed))]
    history = AccuracyHistory(accuracies, setting.adaptation, setting.evaluation)
    keys = [setting.scores_key(recipe) for recipe in deployed]
    rows = tuple(TaskResult(task, history, SECONDS, key) for task, key in enumerate(keys))
    at_lengths = {}
    for length, recipe in cell.at_lengths(deployed[-1]).items():
        moved = AccuracyHistory([*accuracies[:-1], scorer(cell, len(rows) - 1, length)], *history[1:3])
        at_lengths[length] = TaskResult(len(rows) - 1, moved, {"eval": 1.0}, setting.scores_key(recipe))
    return CellResult(cell, rows, deployed[-1].key, {"bytes": SIZE}, at_lengths)
