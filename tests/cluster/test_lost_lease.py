"""A sweep that has lost its lease, or is ended by a signal, stops at the next step, and says so in a line."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.core.errors import StoreError
from time_ray.store import lease as lease_module
from time_ray.store.lease import LEASES, holders
from time_ray.store.sealed import sealed

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": ["ft", "all"], "technique": "average"}
SWEEP = """
import sys
from time_ray.store import lease
from time_ray.cli import main

lease.BEAT_SECONDS, lease.STALE_SECONDS = 0.2, 2.0
if sys.argv.pop(1) == "elsewhere":  # the other cannot see this process
    lease.host_id = lambda: "another host's"
main()
"""


def sweeping(path: Path, where: str = "here", **changes: Any) -> "subprocess.Popen[str]":
    """A sweep in a process of its own, whose lease runs out after two seconds."""
    words = [f"{key}={value}" for key, value in changes.items()]
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP, where, "sweep", str(path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def runs(path: Path) -> None:
    """A sweep of this experiment holds its lease, and has scored something."""
    files = api.open_experiment(path).files
    while not (holders(files) and files.list("scores", recursive=True)):
        time.sleep(0.05)


def other_holder(files: Any) -> None:
    fields = {"host": "elsewhere", "pid": 7, "since": time.time(), "holds": True}
    files.write(sealed(fields), LEASES, "tiny", "0.json")


def test_a_sweep_whose_lease_was_taken_over_does_nothing_more(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL))
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.01)
    struck: list[str] = []

    def strike(event: object) -> None:
        if type(event).__name__ == "TaskDone" and not struck:
            struck.append("once")
            other_holder(opened.files)
            for file in opened.files.list(LEASES, "tiny"):
                if file.base_name != "0.json":
                    opened.files.delete(LEASES, "tiny", file.base_name)
            time.sleep(0.5)

    who = r"sweep 'tiny' is being run by process 7 on elsewhere, .* the other goes on"
    with pytest.raises(StoreError, match=who):
        api.sweep(opened, strike)
    assert [file.base_name for file in opened.files.list(LEASES, "tiny")] == ["0.json"]
    assert not all(result.done for result in api.status(opened))


def test_a_storage_that_is_deleted_under_a_sweep_is_called_that(
    new_experiment: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL))

    def strike(event: object) -> None:
        if type(event).__name__ == "TaskDone" and Path(opened.files.root, LEASES).exists():
            shutil.rmtree(opened.files.root)

    with pytest.raises(StoreError, match="is gone: it was removed or unmounted while it was in use"):
        api.sweep(opened, strike)
    assert "damaged" not in caplog.text


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_sweep_that_is_stopped_for_too_long_ends_and_the_other_goes_on(new_experiment: Make, tmp_path: Path) -> None:
    path = new_experiment(tmp_path, **SMALL, budget="100 steps")
    first = sweeping(path)
    runs(path)
    first.send_signal(signal.SIGSTOP)
    time.sleep(3)
    second = sweeping(path, "elsewhere")
    time.sleep(8)
    first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=60)
    assert (first.returncode, out) == (1, "")
    assert "it ends, and the other goes on" in err
    second.communicate(timeout=200)
    assert second.returncode == 0
    opened = api.open_experiment(path)
    assert all(result.done for result in api.status(opened))
    assert api.sync(opened) is None


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_a_stopped_sweep_of_this_host_keeps_its_lease(new_experiment: Make, tmp_path: Path) -> None:
    path = new_experiment(tmp_path, **SMALL, budget="100 steps")
    first = sweeping(path)
    runs(path)
    first.send_signal(signal.SIGSTOP)
    time.sleep(3)
    out, err = sweeping(path).communicate(timeout=60)
    assert out == ""
    assert "it is stopped: let it go on" in err
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=200)
    assert first.returncode == 0


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_sweep_as_ctrl_c_does(new_experiment: Make, tmp_path: Path, number: signal.Signals) -> None:
    path = new_experiment(tmp_path, **SMALL, budget="100 steps")
    sweep = sweeping(path)
    runs(path)
    os.kill(sweep.pid, number)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert f"ended by {number.name}" in err
    assert holders(api.open_experiment(path).files) == []
