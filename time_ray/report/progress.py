"""What a person sees while a sweep runs: bars on a terminal, plain lines where stderr is piped. All on stderr."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import assert_never

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from time_ray.core import foreign
from time_ray.core.grid import Cell
from time_ray.core.quantities import duration
from time_ray.core.secrets import hidden
from time_ray.events import (
    CellDone,
    CellFailed,
    CellsRunning,
    Event,
    ExpertTrained,
    ModelEvaluated,
    Note,
    Planned,
    Status,
    TaskDone,
)
from time_ray.report.console import SafeConsole
from time_ray.report.running import short_name
from time_ray.results import CellResult, read_results
from time_ray.store.store import Store

LINE_SECONDS = 5.0
TRIALS_SHOWN = 4


class SweepProgress:
    """Takes the events of a sweep and keeps the display true."""

    def __init__(
        self,
        cells: Sequence[Cell],
        store: Store,
        console: Console,
        words: str = "",
        more: Callable[[], Iterable[Cell]] = tuple,
    ) -> None:
        self.console = console
        self.store = store
        self.cells = {cell.key: cell for cell in cells}
        self._more = more
        self.best: CellResult | None = None
        self.failed = 0
        self.status = ""
        self._words = words  # the experiment, as it follows a verb on the command line
        self._plan: Planned | None = None
        self._trained = 0
        self._evaluated = 0
        self._cells = 0
        self._spent = {"trained": 0.0, "evaluated": 0.0}
        self._busy: dict[str, list[str]] = {}  # by trial, the cells it is at
        self._holders: dict[str, str] = {}
        self._nodes: dict[str, str] = {}  # by trial
        self._tasks: dict[str, int] = {}  # done, by cell
        self._begun = False
        self._last_line = 0.0
        self._bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
        self._rows = {name: self._bars.add_task(name, total=None) for name in ("trainings", "scores", "cells")}

    def _cell(self, key: str) -> Cell:
        if key not in self.cells:
            self.cells.update({cell.key: cell for cell in self._more()})
        return self.cells[key]

    def take(self, event: Event) -> None:
        """The display also knows of this event."""
        match event:
            case Planned():
                self._on_plan(event)
            case Status():
                self._on_status(event)
            case Note():
                self.console.print(hidden(event.text), style="dim", highlight=False, soft_wrap=True)
            case CellsRunning():
                self._busy[event.holder] = list(event.cells)
                self._holders.update(dict.fromkeys(event.cells, event.holder))
                self._nodes[event.holder] = event.node
                self._begun = True
                self.status = ""
            case ExpertTrained():
                self._trained += 1
                self._spent["trained"] += event.seconds
            case ModelEvaluated():
                self._evaluated += 1
                self._spent["evaluated"] += event.seconds
            case TaskDone():
                self._tasks[event.cell] = event.task
            case CellDone():
                self._on_done(event)
            case CellFailed():
                self._on_failed(event)
            case _:
                assert_never(event)
        self._update()

    def __rich__(self) -> Group:
        """The display on a terminal."""
        trials = (Text(foreign.shown(line), style="dim", no_wrap=True, overflow="ellipsis") for line in self.trials())
        ends = [self.line(), f"in MLflow: time-ray ui {self._words}" if self._words else ""]
        return Group(self._bars, *trials, *(Text(foreign.shown(line), style="dim") for line in ends if line))

    def trials(self) -> list[str]:
        """What runs where: a line for each of the first few trials, and how many more there are."""
        lines = [self._trial(holder, keys) for holder, keys in list(self._busy.items())[:TRIALS_SHOWN]]
        more = len(self._busy) - len(lines)
        return [*lines, *([f"and {more} more trials"] if more else [])]

    def _trial(self, holder: str, keys: Sequence[str]) -> str:
        cells = [self._cell(key) for key in keys]
        at = min(self._tasks.get(cell.key, 0) for cell in cells)
        tasks, others = len(cells[0].setting.trainings), f" + {len(cells) - 1}" if len(cells) > 1 else ""
        where = f" on {node}" if (node := self._nodes[holder]) else ""
        return f"{holder}{where}: task {min(at + 1, tasks)} of {tasks}, {cells[0].name}{others}"

    def line(self) -> str:
        """Everything in one line."""
        parts = [self.status] if self.status else []
        if self.best is not None and self.best.final["gm"] is not None:
            parts.append(f"best so far {short_name(self.best.cell)} GM {self.best.final['gm']:.1f}")
        eta = self._eta()
        if eta is not None:
            parts.append(f"about {duration(eta)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return " · ".join(parts)

    def _on_plan(self, plan: Planned) -> None:
        self._plan = plan
        for name, total in zip(self._rows, (plan.trainings, plan.evaluations, plan.cells), strict=True):
            self._bars.update(self._rows[name], total=total)

    def _on_status(self, event: Status) -> None:
        self.status = event.text
        self._plain(self.status, now=True)

    def _on_done(self, event: CellDone) -> None:
        self._cells += 1
        self._over(event.cell)
        (result,) = read_results([self._cell(event.cell)], self.store)
        if result.done and (self.best is None or (result.final["gm"] or 0) > (self.best.final["gm"] or 0)):
            self.best = result

    def _over(self, cell: str) -> None:
        holder = self._holders.pop(cell, "")
        left = self._busy.get(holder, [])
        if cell in left:
            left.remove(cell)
        if not left:
            self._busy.pop(holder, None)

    def _on_failed(self, event: CellFailed) -> None:
        self.failed += 1
        self._over(event.cell)
        message = f"failed: {self._cell(event.cell).name}: {event.error}"
        self.console.print(message, style="red", highlight=False)

    def _update(self) -> None:
        for name, done in zip(self._rows, (self._trained, self._evaluated, self._cells), strict=True):
            self._bars.update(self._rows[name], completed=done)
        self._plain(self._counts())

    def _counts(self) -> str:
        if self._plan is None or not self._begun:
            return ""
        counts = (
            f"trainings {self._trained}/{self._plan.trainings}, "
            f"scores {self._evaluated}/{self._plan.evaluations}, cells {self._cells}/{self._plan.cells}"
        )
        return " · ".join(filter(None, (counts, self.line())))

    def _plain(self, line: str, *, now: bool = False) -> None:
        """A line for logs and pipes, not more often than they can be read."""
        if self.console.is_terminal or not line or (not now and time.monotonic() - self._last_line < LINE_SECONDS):
            return
        self._last_line = time.monotonic()
        self.console.print(line, highlight=False, soft_wrap=True)

    def _eta(self) -> float | None:
        """Seconds left at the mean rates so far, over the workers that are busy."""
        if self._plan is None or not self._busy or not self._evaluated:
            return None
        left = {
            "trained": (self._plan.trainings - self._trained, self._trained),
            "evaluated": (self._plan.evaluations - self._evaluated, self._evaluated),
        }
        total = sum(todo * self._spent[kind] / done for kind, (todo, done) in left.items() if done and todo > 0)
        return total / len(self._busy)


@contextmanager
def shown(
    cells: Sequence[Cell],
    store: Store,
    words: str = "",
    *,
    more: Callable[[], Iterable[Cell]] = tuple,
    quiet: bool = False,
) -> Iterator[SweepProgress]:
    """The progress of a sweep of these cells is shown on stderr while the block runs.

    Args:
        cells: of the sweep.
        store: where their results lie.
        words: the experiment, as it follows a verb on the command line.
        more: gives cells that are known only once the sweep is at them.
        quiet: nothing is shown.

    """
    console = SafeConsole(stderr=True, quiet=quiet)
    progress = SweepProgress(cells, store, console, words, more)
    if not console.is_terminal:
        yield progress
        return
    with Live(progress, console=console, refresh_per_second=4, transient=True):
        yield progress
