"""The same sweep on a real local Ray cluster: Tune trials that are Train jobs, and the same bits as in one process."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from time_ray import api
from time_ray.api import Opened
from time_ray.events import Event, ExpertTrained, Note, Status

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

Make = Callable[..., Path]
COMMAND = [sys.executable, "-c", "from time_ray.cli import main; main()", "sweep"]
SMALL = {"init": ["ft", "ema"], "deploy": ["ema", "all"], "technique": ["average"], "budget": "20 steps"}


def ends(opened: Opened) -> dict[str, Any]:
    """What every cell serves at the end, and every score on the way."""
    return {
        result.cell.key: (result.weights and result.weights["digest"], [dict(row.accuracy) for row in result.rows])
        for result in api.status(opened)
    }


def addresses() -> set[str]:
    """Where this process and all below it listen."""
    me = psutil.Process()
    found = set()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def workers() -> Iterator[int]:
    """Trials of this process's Ray cluster that have begun their work: each is one process."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parents[int(folder.name)] = (int((folder / "stat").read_text().rpartition(")")[2].split()[1]), title)
            except OSError:
                continue  # it ended meanwhile
    for pid, (_, title) in parents.items():
        if "ray::ImplicitFunc" in title and os.getpid() in ancestors(pid, parents):
            yield pid


def ancestors(pid: int, parents: dict[int, tuple[int, str]]) -> set[int]:
    found = set()
    while pid in parents:
        pid = parents[pid][0]
        found.add(pid)
    return found


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> dict[str, Any]:
    opened = api.open_experiment(new_experiment(tmp_path_factory.mktemp("alone"), **SMALL))
    assert api.sweep(opened).exit_code == 0
    return ends(opened)


def test_two_trials_on_ray_of_which_one_is_killed(
    in_process: dict[str, Any], new_experiment: Make, tmp_path: Path
) -> None:
    """One of two trials ends by SIGKILL after its first expert; Ray Tune starts it again.

    Meanwhile everything listens on loopback only, and a second sweep of the same experiment is refused.
    """
    path = new_experiment(tmp_path, **SMALL, run={"workers": 1, "trials": 2})
    opened = api.open_experiment(path)
    events: list[Event] = []
    killed: list[int] = []
    listening: set[str] = set()
    second: list[subprocess.CompletedProcess[str]] = []

    def look_and_kill(event: Event) -> None:
        events.append(event)
        if not isinstance(event, ExpertTrained) or killed:
            return
        killed.extend(list(workers())[:1])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        # after the kill, since trials go on meanwhile
        listening.update(addresses())
        second.append(subprocess.run([*COMMAND, str(path)], capture_output=True, text=True, check=False))

    outcome = api.sweep(opened, look_and_kill)
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert listening
    assert second[0].returncode == 2
    assert second[0].stdout == ""
    assert f"sweep 'tiny' is being run by process {os.getpid()} on " in second[0].stderr
    assert len(killed) == 1
    assert Status("starting 2 trials, 2 at once") in events
    assert [e.text for e in events if isinstance(e, Note) and "is started again (" in e.text]
    assert outcome.failures == {}
    assert outcome.exit_code == 0
    assert outcome.tracking_error is None
    assert ends(opened) == in_process
    assert not (tmp_path / "runs" / "ray").exists() or not list((tmp_path / "runs" / "ray").iterdir())


@pytest.mark.nightly
def test_neither_a_proxy_nor_a_long_temporary_folder_is_in_the_way(
    in_process: dict[str, Any], new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing answers at the proxy; sockets cannot be made in the folder, whose name needs quotes in an address."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / f"{'x' * 80}#?%41"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL, run={"workers": 1}))
    assert api.sweep(opened).exit_code == 0
    assert ends(opened) == in_process


@pytest.mark.nightly
def test_groups_of_workers_agree_to_rounding(in_process: dict[str, Any], new_experiment: Make, tmp_path: Path) -> None:
    """Two workers a trial: Ray Train places them, and each sees half of every batch."""
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL, run={"workers": 2}))
    assert api.sweep(opened).exit_code == 0
    together = ends(opened)
    assert together.keys() == in_process.keys()
    for key, (_, scores) in together.items():
        for ours, theirs in zip(scores, in_process[key][1], strict=True):
            assert ours == pytest.approx(theirs, abs=2.0)  # percent: an image or two


@pytest.mark.nightly
def test_models_with_different_needs_share_a_sweep(new_experiment: Make, tmp_path: Path) -> None:
    """Trials of one worker and of two, which take all CPUs of a machine with two: none of them starves."""
    found = {}
    for name, run in {
        "alone": {"workers": 0},
        "mixed": {"workers": 1, "by_model": {"mini-base": {"workers": 2}, "mini-tiny": {"loaders": 0}}},
    }.items():
        (tmp_path / name).mkdir()
        path = new_experiment(tmp_path / name, **SMALL, model=["mini-tiny", "mini-base"], run=run)
        opened = api.open_experiment(path)
        assert api.sweep(opened).exit_code == 0
        found[name] = {result.cell.key: result for result in api.status(opened)}
    assert found["mixed"].keys() == found["alone"].keys()
    for key, mixed in found["mixed"].items():
        alone = found["alone"][key]
        if mixed.cell.setting.model.name == "mini-tiny":
            assert mixed.weights is not None
            assert alone.weights is not None
            assert mixed.weights["digest"] == alone.weights["digest"]
        for ours, theirs in zip(mixed.rows, alone.rows, strict=True):
            assert dict(ours.accuracy) == pytest.approx(dict(theirs.accuracy), abs=2.0)  # percent: an image or two


@pytest.mark.nightly
@pytest.mark.parametrize("entries", [1, 3, 5])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_driver_that_is_killed_and_started_again(
    in_process: dict[str, Any], new_experiment: Make, tmp_path: Path, num_workers: int, entries: int
) -> None:
    """SIGKILL once some scores are kept; the same command ends in the same bits."""
    path = new_experiment(tmp_path, **SMALL, run={"workers": num_workers})
    command = [*COMMAND, str(path)]
    scores = tmp_path / "runs" / "scores"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        while driver.poll() is None and len(list(scores.rglob("*.json"))) < entries:
            time.sleep(0.02)
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert ends(api.open_experiment(path)) == in_process
