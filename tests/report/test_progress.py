"""What a sweep says while it runs, where stderr is piped."""

import io
from pathlib import Path

from rich.console import Console
from toy_grid import full_grid, setting, technique

from time_ray.events import (
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
from time_ray.report.progress import SweepProgress
from time_ray.store.files import Files
from time_ray.store.store import Store

CELLS = full_grid([technique()], setting(2))


def said(tmp_path: Path, *events: Event) -> tuple[list[str], SweepProgress]:
    out = io.StringIO()
    progress = SweepProgress(CELLS, Store(Files(str(tmp_path))), Console(file=out, width=200, markup=False))
    for event in events:
        progress.take(event)
    return out.getvalue().splitlines(), progress


def test_counts_are_of_what_was_to_do(tmp_path: Path) -> None:
    lines, progress = said(
        tmp_path,
        Planned(trainings=4, evaluations=8, cells=12),
        CellsRunning((CELLS[0].key,), "a trial"),
        ExpertTrained("expert", steps=10, seconds=2.0),
        ModelEvaluated(seconds=1.0),
    )
    assert lines == ["trainings 0/4, scores 0/8, cells 0/12"]  # more lines than one in five seconds nobody reads
    assert progress.line() == "about 13 s left"  # three trainings and seven evaluations, by one trial


def test_what_people_should_know_is_said_at_once(tmp_path: Path) -> None:
    lines, progress = said(
        tmp_path,
        Status("starting Ray"),
        Note("decoded images are kept"),
        CellFailed(CELLS[3].key, "the loss is [/nan]"),
    )
    assert lines == ["starting Ray", "decoded images are kept", f"failed: {CELLS[3].name}: the loss is [/nan]"]
    assert progress.line() == "starting Ray · 1 failed"


def test_a_terminal_shows_what_runs_where_and_where_to_look_at_it(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, markup=False)
    progress = SweepProgress(CELLS, Store(Files(str(tmp_path))), console, "experiments/mine.yaml seed=1")
    first, second, *_ = (cell.key for cell in CELLS)
    for event in (
        Planned(trainings=4, evaluations=8, cells=12),
        CellsRunning((first, second), "trial 0", "node-1"),
        TaskDone(first, 1),
        TaskDone(second, 1),
        *(CellsRunning((cell.key,), f"trial {number}") for number, cell in enumerate(CELLS[2:8], start=1)),
    ):
        progress.take(event)
    trials = progress.trials()
    assert len(trials) == 5
    assert trials[0] == f"trial 0 on node-1: task 2 of 2, {CELLS[0].name} + 1"
    assert trials[1] == f"trial 1: task 1 of 2, {CELLS[2].name}"
    assert trials[-1] == "and 3 more trials"
    console.print(progress)
    assert "in MLflow: time-ray ui experiments/mine.yaml seed=1" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80 + len("\x1b[2m\x1b[0m") * 4
