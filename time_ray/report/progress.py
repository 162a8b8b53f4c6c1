"""What a person sees while a sweep runs: bars on a terminal, plain lines where stderr is piped. All on stderr."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from time_ray.core.plan import Plan
from time_ray.results import CellResult, read_results
from time_ray.store.store import Store

Event = dict[str, Any]
LINE_SECONDS = 5.0


class SweepProgress:
    """Takes the events of a sweep and keeps the display true."""

    def __init__(self, store: Store, console: Console) -> None:
        self.console = console
        self.store = store
        self.best: CellResult | None = None
        self.failed = 0
        self.step = ""
        self._plan: Plan | None = None
        self._trained = 0
        self._evaluated = 0
        self._cells = 0
        self._spent = {"trained": 0.0, "evaluated": 0.0}
        self._busy: set[str] = set()
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

    def take(self, event: Event) -> None:
        """The display also knows of this event."""
        handler = getattr(self, f"_on_{event['kind']}", None)
        if handler is not None:
            handler(event)
        self._update()

    def __rich__(self) -> Group:
        """The display on a terminal."""
        return Group(self._bars, Text(self.line(), style="dim"))

    def line(self) -> str:
        """Everything in one line."""
        parts = [self.step] if self.step else []
        if self.best is not None and self.best.final["gm"] is not None:
            axes = self.best.cell.axes
            name = f"{axes['init']}/{axes['deploy']} {axes['technique']}"
            parts.append(f"best so far {name} GM {self.best.final['gm']:.1f}")
        eta = self._eta()
        if eta is not None:
            parts.append(f"about {_duration(eta)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return " · ".join(parts)

    def _on_plan(self, event: Event) -> None:
        self._plan = plan = event["plan"]
        totals = (plan.trainings_to_do, plan.evaluations_to_do, plan.cells_to_do)
        for name, total in zip(self._rows, totals, strict=True):
            self._bars.update(self._rows[name], total=total)

    def _on_say(self, event: Event) -> None:
        self.step = event["text"]
        self._plain(self.step, now=True)

    def _on_note(self, event: Event) -> None:
        self.console.print(event["text"], style="dim", highlight=False, soft_wrap=True)

    def _on_running(self, event: Event) -> None:
        self._busy.add(event["holder"])
        self.step = ""

    def _on_trained(self, event: Event) -> None:
        self._trained += 1
        self._spent["trained"] += event["seconds"]

    def _on_evaluated(self, event: Event) -> None:
        self._evaluated += 1
        self._spent["evaluated"] += event["seconds"]

    def _on_done(self, event: Event) -> None:
        self._cells += 1
        (result,) = read_results([event["of"]], self.store)
        if result.done and (self.best is None or (result.final["gm"] or 0) > (self.best.final["gm"] or 0)):
            self.best = result

    def _on_failed(self, event: Event) -> None:
        self.failed += 1
        message = f"failed: {event['of'].name}: {event['error']}"
        self.console.print(message, style="red", highlight=False)

    def _update(self) -> None:
        for name, done in zip(self._rows, (self._trained, self._evaluated, self._cells), strict=True):
            self._bars.update(self._rows[name], completed=done)
        self._plain(self._counts())

    def _counts(self) -> str:
        if self._plan is None or not self._busy:
            return ""
        counts = (
            f"trainings {self._trained}/{self._plan.trainings_to_do}, "
            f"scores {self._evaluated}/{self._plan.evaluations_to_do}, cells {self._cells}/{self._plan.cells_to_do}"
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
            "trained": (self._plan.trainings_to_do - self._trained, self._trained),
            "evaluated": (self._plan.evaluations_to_do - self._evaluated, self._evaluated),
        }
        total = sum(todo * self._spent[kind] / done for kind, (todo, done) in left.items() if done and todo > 0)
        return total / len(self._busy)


@contextmanager
def shown(store: Store, *, quiet: bool = False) -> Iterator[SweepProgress]:
    """The progress of a sweep is shown on stderr while the block runs."""
    console = Console(stderr=True, quiet=quiet, markup=False)
    progress = SweepProgress(store, console)
    if not console.is_terminal:
        yield progress
        return
    with Live(progress, console=console, refresh_per_second=4, transient=True):
        yield progress


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
