"""`time-ray status --watch`: how far a sweep is, from its storage alone, until it ends. All on stderr."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from time_ray.analysis.searching import results_of
from time_ray.opened import Opened
from time_ray.report.running import best_so_far, counted, not_running, tasks_of
from time_ray.results import CellResult, read_results
from time_ray.store.lease import holders

LOOK_SECONDS = 2.0
SHOWN = 24  # rows on a terminal: those that are not done, the rest in a line


def watched(opened: Opened, console: Console, seconds: float = LOOK_SECONDS) -> list[CellResult]:
    """Every cell with its rows, once nobody runs the sweep any more; until then the console shows how far it is.

    Args:
        opened: The experiment.
        console: A terminal is drawn anew with every look; elsewhere a line is printed whenever there is news.
        seconds: Between two looks.

    """
    line, results = "", list[CellResult]()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    with live or nullcontext():
        for results, runs in _looks(opened, seconds):
            if live is not None:
                live.update(_drawn(results), refresh=True)
            elif line != (line := "; ".join(filter(None, (counted(results), best_so_far(results))))):
                console.print(f"{time.strftime('%H:%M:%S')} {line}")
            if not runs:
                break
    if any(result.due for result in results):
        name = opened.study.experiment.name
        console.print(f"{not_running(name, opened.files)}; {counted(results)}: time-ray sweep {opened.words}")
    return results


def _looks(opened: Opened, seconds: float) -> Iterator[tuple[list[CellResult], bool]]:
    """What the storage holds, look after look, and whether somebody runs the sweep; what is done is not read again."""
    found, store = dict[str, CellResult](), opened.store
    while True:
        runs = any(holder.name == opened.study.experiment.name for holder in holders(opened.files))
        if opened.study.experiment.search is not None:  # what is removed now may have been done before
            yield results_of(opened.study, store), runs
        else:
            missing = [cell for cell in opened.study.everything if cell.key not in found or not found[cell.key].done]
            found |= {result.cell.key: result for result in read_results(missing, store)}
            yield [found[cell.key] for cell in opened.study.everything], runs
        time.sleep(seconds)


def _drawn(results: Sequence[CellResult]) -> Group:
    """The counts, and every cell that is not done with a bar of its tasks."""
    table = Table.grid(Column("cell", no_wrap=True, overflow="ellipsis"), "tasks", "", padding=(0, 2))
    todo = [result for result in results if result.due]
    for result in todo[:SHOWN]:
        at, last = tasks_of(result)
        table.add_row(result.cell.name, f"{at}/{last}", ProgressBar(total=last, completed=at, width=24))
    more = f"{len(todo) - SHOWN} more cells" if len(todo) > SHOWN else ""
    return Group(table, *filter(None, (more, counted(results), best_so_far(results))))
