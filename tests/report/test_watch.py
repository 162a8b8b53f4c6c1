"""`time-ray status --watch`, beside a sweep of another process."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from time_ray import api
from time_ray.report.watch import watched
from time_ray.store.lease import lease

SMALL = {"init": ["ft", "ema"], "deploy": ["all"], "technique": "average", "budget": "5 steps"}
SWEEP = [sys.executable, "-c", "from time_ray.cli import main; main()", "sweep"]


@pytest.mark.nightly
def test_a_sweep_is_watched_to_its_end_from_its_storage_alone(
    new_experiment: Callable[..., Path], tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, **SMALL)
    with subprocess.Popen([*SWEEP, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
        while not list((tmp_path / "runs").glob("leases/tiny/*")):
            assert sweep.poll() is None
            time.sleep(0.02)
        done = time_ray("status", path, "--watch", "-f", "json")
    assert sweep.returncode == 0
    assert done.status == 0, done.err
    assert [row["tasks"] for row in json.loads(done.out)] == ["3/3", "3/3"]
    lines = done.err.strip().splitlines()
    assert "0 of 2 cells are done" in lines[0]
    assert "2 of 2 cells are done; 6 of 6 tasks; best so far: ft/" in lines[-1]


def test_what_nobody_runs_is_said_at_once(
    new_experiment: Callable[..., Path], tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, **SMALL)
    done = time_ray("status", path, "--watch")
    assert done.status == 1
    assert f"sweep 'tiny' is not running on {tmp_path / 'runs'}; " in done.err
    assert f"0 of 2 cells are done, 0 begun, 2 waiting; 0 of 6 tasks: time-ray sweep {path}" in done.err


def test_a_terminal_is_drawn_anew_with_a_bar_a_cell(new_experiment: Callable[..., Path], tmp_path: Path) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL))
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    watched(opened, console, 0.01)
    for cell in opened.study.cells:
        assert cell.name in out.getvalue()
    assert "0/3" in out.getvalue()


def test_ctrl_c_ends_the_watching_alone(
    new_experiment: Callable[..., Path], tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: Any
) -> None:
    path = new_experiment(tmp_path, **SMALL)

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    opened = api.open_experiment(path)
    with lease(opened.files, "tiny"):
        monkeypatch.setattr("time_ray.report.watch.time.sleep", interrupted)
        done = time_ray("status", path, "--watch")
        assert api.stop("tiny", opened.files) is not None
    assert (done.status, done.out) == (130, "")
