"""The small sweep, undisturbed once and then as often as a test likes."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from faulty import Faulty
from kept import end_state, table
from small import Small, at, draw, open_small
from untracked import Untracked

from time_ray import api


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time_ray.cluster.sweep.MlflowSync", Untracked)


@pytest.fixture(scope="session")
def make_small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Small]:
    def make(**changes: Any) -> Small:
        folder = tmp_path_factory.mktemp("small")
        opened = open_small(folder, draw(folder / "data"), **changes)
        faulty = Faulty()
        with pytest.MonkeyPatch.context() as context:
            context.setattr("time_ray.cluster.sweep.MlflowSync", Untracked)
            outcome = api.sweep(at(opened, faulty.files(folder / "runs")))
        assert outcome.exit_code == 0
        return Small(opened, faulty.points, end_state(opened.files), table(opened))

    return make


@pytest.fixture(scope="session")
def small(make_small: Callable[..., Small]) -> Small:
    return make_small()


@pytest.fixture(scope="session")
def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


@pytest.fixture
def as_if_dead(monkeypatch: pytest.MonkeyPatch, dead_pid: int) -> None:
    """What this process leaves behind looks like a dead process's: its lease, above all."""
    monkeypatch.setattr("time_ray.store.lease.os.getpid", lambda: dead_pid)
