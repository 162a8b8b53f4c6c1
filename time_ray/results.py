"""Results, read back from the store: what every cell scored after every task, and what each stage cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

from time_ray.core.grid import Cell, Setting
from time_ray.core.loss_curve import LossPoint, read
from time_ray.core.metrics import AccuracyHistory, scores
from time_ray.core.plan import Stored, needs
from time_ray.core.recipe import Recipe
from time_ray.events import CellFailed
from time_ray.per_image import Lazy, PerImage
from time_ray.store.entry_files import Entry
from time_ray.store.store import Store


@dataclass(frozen=True)
class TaskResult:
    """One row of a cell: what it serves after a task (0: the base, before any training)."""

    task: int
    history: AccuracyHistory  # of the whole cell
    seconds: Mapping[str, float]  # cost of each stage where it was first done: init, train, deploy, eval
    scores_key: str = ""  # under which its outcomes lie; empty: nowhere
    distance: float | None = None  # ||weights - base|| / ||base||; None where it was not measured
    curve: tuple[LossPoint, ...] = ()  # of the training of the task's expert, where it was kept
    spent: Mapping[str, float] = field(default_factory=dict)  # time by what it was spent on
    performance: Mapping[str, float] = field(default_factory=dict)  # of its training and evaluation on their device
    device: str = ""  # that it was trained on; empty: nobody noted it

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Percent, by dataset."""
        return self.history.accuracies[self.task]

    @cached_property
    def scores(self) -> Mapping[str, float | None]:
        """Every metric of the table, by name; None where it is not defined."""
        return scores(self.history.until(self.task))


@dataclass(frozen=True)
class Removed:
    """Why a search runs a cell no more.

    Attributes:
        seeds: how many had been run.
        by: the leader then; empty: the cell failed.
        ahead: of that leader. A race knows that it is at most so much, below 0 that the cell is behind at least so far;
            halving compares means. None if it failed.
        metric: the title of what is compared.
        sure: whether it is a bound.

    """

    seeds: int
    by: str
    ahead: float | None
    metric: str
    sure: bool

    @property
    def failed(self) -> bool:
        """Whether it left as it failed."""
        return self.ahead is None

    @property
    def when(self) -> str:
        """Since when, in words."""
        return f"removed after {self.seeds} seed{'s' * (self.seeds > 1)}"

    @property
    def text(self) -> str:
        """It as people read it."""
        if self.ahead is None:
            return f"{self.when}: it failed"
        bound = "" if not self.sure else "at least " if self.ahead <= 0 else "at most "
        where = "behind" if self.ahead <= 0 else "ahead"
        return f"{self.when} by {self.by} ({bound}{abs(self.ahead):.1f} {self.metric} {where})"


@dataclass(frozen=True)
class CellResult:
    """A cell with all rows that exist so far."""

    cell: Cell
    rows: tuple[TaskResult, ...]
    final_key: str  # of the deployed model after the last of the rows
    weights: Entry | None  # of that model, if it is kept
    at_lengths: Mapping[float, TaskResult] = field(default_factory=dict)  # the last row, at other lengths
    removed: Removed | None = None  # by a search
    wanted: bool = True  # False for what a search, which is over, does without

    @property
    def scored(self) -> bool:
        """Whether every task is."""
        return len(self.rows) == 1 + len(self.cell.setting.trainings)

    @property
    def done(self) -> bool:
        """Whether every task is scored, also at the lengths that are asked for, and the final weights are kept."""
        whole = self.scored and self.weights is not None
        return whole and len(self.at_lengths) == len(self.cell.setting.scoring.lengths)

    @property
    def due(self) -> bool:
        """Whether it is yet to be done. What left a search as it failed is."""
        return not self.done and self.wanted and (self.removed is None or self.removed.failed)

    @property
    def final(self) -> Mapping[str, float | None]:
        """Scores after the last task, by metric."""
        return self.rows[-1].scores


def spared_text(results: Sequence[CellResult]) -> str:
    """How many cells a search does without, to follow a count of cells; empty if none."""
    spared = sum(not (result.done or result.due) for result in results)
    return f", {spared} left out by the search" if spared else ""


@dataclass
class Outcome:
    """How a sweep ended."""

    results: list[CellResult]
    failures: Mapping[str, CellFailed] = field(default_factory=dict)  # by cell key
    interrupted: bool = False
    tracking_error: str | None = None  # what MLflow lacks, and why
    seconds: float = 0.0
    untuned: Mapping[str, str] = field(default_factory=dict)  # searches for parameters that failed, and why
    traces: tuple[str, ...] = ()  # relative to the storage, where the sweep was to be profiled

    @property
    def exit_code(self) -> int:
        """130 interrupted, 1 some cell failed, 0 all done."""
        if self.interrupted:
            return 130
        return 1 if any(result.due for result in self.results) or self.untuned else 0


def stored(store: Store) -> Stored:
    """What the store holds, by two listings."""
    return Stored(store.keys("weights"), store.keys("scores"))


def unfinished(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """Cells that are not done. Only what the listings say is there is read, as it may be damaged."""
    have = stored(store)
    images = PerImage(store)
    return [cell for cell in cells if needs(cell).missing(have) or not _read(cell, store, images).done]


def read_results(cells: Sequence[Cell], store: Store) -> list[CellResult]:
    """Every cell's rows as far as they go, from the store alone."""
    images = PerImage(store)
    return [_read(cell, store, images) for cell in cells]


def _read(cell: Cell, store: Store, images: PerImage) -> CellResult:
    setting = cell.setting
    final: Recipe = setting.base
    found: list[_Scored] = []
    for scored in _scored(cell, store):
        found.append(scored)
        final = scored.recipe
    history = _history(found, setting, images)
    rows = tuple(_row(task, history, one, setting) for task, one in enumerate(found))
    at_lengths: dict[float, TaskResult] = {}
    for length, recipe in (cell.at_lengths(final) if len(rows) == 1 + len(setting.trainings) else {}).items():
        if moved := _found(recipe, None, setting, store):
            history = _history([*found[:-1], moved], setting, images)
            at_lengths[length] = _row(rows[-1].task, history, moved, setting)
    return CellResult(cell, rows, final.key, store.entry("weights", final.key), at_lengths)


def _history(found: Sequence["_Scored"], setting: Setting, images: PerImage) -> AccuracyHistory:
    keys = [setting.scores_key(one.recipe) for one in found]
    by_task = Lazy(partial(_by_task, keys, setting, images), range(len(keys)))
    return AccuracyHistory([one.accuracy for one in found], setting.adaptation, setting.evaluation, by_task)


def _by_task(keys: Sequence[str], setting: Setting, images: PerImage, task: int) -> list[float] | None:
    return images.by_task(keys[task], setting)


class _Scored(NamedTuple):
    """What is served, its scores' entry, and that of the expert it was made with."""

    recipe: Recipe
    entry: Any
    expert: Entry | None

    @property
    def accuracy(self) -> Mapping[str, float]:
        found: Mapping[str, float] = self.entry["accuracy"]
        return found


def _row(task: int, history: AccuracyHistory, one: _Scored, setting: Setting) -> TaskResult:
    entries = [entry for entry in (one.expert, one.entry) if entry]
    seconds, spent, performance = (_summed(entries, of) for of in ("seconds", "spent", "performance"))
    expert: Entry = one.expert or {}
    return TaskResult(
        task,
        history,
        seconds,
        setting.scores_key(one.recipe),
        one.entry.get("distance"),
        read(expert.get("curve")),
        spent,
        performance,
        str(expert.get("device", "")),
    )


def _scored(cell: Cell, store: Store) -> Iterator[_Scored]:
    """What is served after each task: as far as it is scored."""
    setting = cell.setting
    base = _found(setting.base, None, setting, store)
    if base is None:
        return
    yield base
    for step in cell.walk():
        expert = store.entry("weights", step.expert.key)
        scored = _found(step.deployed, expert, setting, store)
        if scored is None or expert is None:
            return
        yield scored


def _found(recipe: Recipe, expert: Entry | None, setting: Setting, store: Store) -> _Scored | None:
    entry = store.entry("scores", setting.scores_key(recipe))
    return None if entry is None else _Scored(recipe, entry, expert)


def _summed(entries: Sequence[Any], of: str) -> dict[str, float]:
    """Numbers by name, added up over entries; earlier versions wrote none but seconds."""
    found: dict[str, float] = {}
    for entry in entries:
        for name, value in entry.get(of, {}).items():
            found[name] = found.get(name, 0.0) + float(value)
    return found
