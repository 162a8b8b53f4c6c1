"""What a sweep says while it runs, where stderr is piped."""

import io
from pathlib import Path

from rich.console import Console
from toy_grid import full_grid, setting, technique

from time_ray.events import CellFailed, CellsRunning, Event, ExpertTrained, ModelEvaluated, Note, Planned, Status
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
