"""What people are told of sweeps that run, or do not, on a storage."""

from collections.abc import Sequence
from operator import itemgetter

from time_ray.core.grid import Cell
from time_ray.results import CellResult, spared_text
from time_ray.store.files import Files
from time_ray.store.lease import CLEANING, Holder, holders


def asked(holder: Holder, *, now: bool) -> str:
    """Who was asked to stop a sweep; the holder is who runs it."""
    what = "break off what is running" if now else "finish what is running"
    who = f"process {holder.fields['pid']} on {holder.fields['host']}"
    return f"asked {who} to {what} and stop; time-ray status EXP --watch shows when it has"


def tasks_of(result: CellResult) -> tuple[int, int]:
    """How many tasks a cell has done, and how many there are."""
    return max(0, len(result.rows) - 1), len(result.cell.setting.trainings)


def counted(results: Sequence[CellResult]) -> str:
    """How far a sweep is, in numbers."""
    tasks = [tasks_of(result) for result in results]
    done = sum(result.done for result in results)
    begun = sum(bool(at) and result.due for result, (at, _) in zip(results, tasks, strict=True))
    due = sum(result.due for result in results)
    counts = f"{done} of {len(results)} cells are done"
    if due:
        counts += f", {begun} begun, {due - begun} waiting"
    return f"{counts}{spared_text(results)}; {sum(at for at, _ in tasks)} of {sum(last for _, last in tasks)} tasks"


def best_so_far(results: Sequence[CellResult]) -> str:
    """The finished cell of the grid that has the highest GM and was not removed by a search; empty if there is none."""
    left = [result for result in results if result.done and result.removed is None and not result.cell.multitask]
    scored = [(gm, result) for result in left if (gm := result.final["gm"]) is not None]
    if not scored:
        return ""
    gm, best = max(scored, key=itemgetter(0))
    return f"best so far: {short_name(best.cell)}, GM {gm:.1f}"


def short_name(cell: Cell) -> str:
    """A cell by TIME's three axes."""
    return f"{cell.axes['init']}/{cell.axes['deploy']} {cell.axes['technique']}"


def not_running(name: str, files: Files) -> str:
    """That nobody runs a sweep, and what else runs on the storage."""
    others = sorted({holder.name for holder in holders(files)} - {CLEANING})
    beside = f"; these are: {', '.join(others)}" if others else ""
    return f"sweep '{name}' is not running on {files.shown}{beside}"
