"""Of two drivers of one sweep the second is told so; the dead hold nothing."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from time_ray.core.errors import UserError
from time_ray.store.files import Files
from time_ray.store.lease import STALE_SECONDS, lease
from time_ray.store.sealed import sealed

NAME = "sweep"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path))


def left_behind(files: Files, **about: object) -> None:
    """The lease of a process that could not remove it."""
    now = time.time()
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now - 5, "beat": now, **about}
    files.write(sealed(holder), "leases", NAME, "0.json")


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_a_second_holder_is_refused_and_told_who_holds_it(files: Files) -> None:
    who = rf"sweep 'sweep' is being run by process {os.getpid()} on {socket.gethostname()}, since .*; wait for it"
    with lease(files, NAME):
        with pytest.raises(UserError, match=who), lease(files, NAME):
            pass
        assert len(files.list("leases", NAME)) == 1
    assert files.list("leases", NAME) == []


def test_another_sweep_may_run_beside(files: Files) -> None:
    with lease(files, NAME), lease(files, "other"):
        pass


def test_a_lease_ends_with_an_error(files: Files) -> None:
    with pytest.raises(RuntimeError, match="inside"), lease(files, NAME):
        raise RuntimeError("inside")
    with lease(files, NAME):
        pass


def test_the_dead_hold_nothing(files: Files) -> None:
    left_behind(files, pid=dead_pid())
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1


def test_a_lease_of_another_machine_holds_while_it_beats(files: Files) -> None:
    left_behind(files, host="elsewhere", pid=1)
    with pytest.raises(UserError, match="process 1 on elsewhere"), lease(files, NAME):
        pass


def test_a_lease_that_beats_no_more_is_released(files: Files) -> None:
    left_behind(files, host="elsewhere", pid=1, beat=time.time() - STALE_SECONDS - 1)
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1


def test_a_later_comer_steps_back_for_us(files: Files) -> None:
    left_behind(files, since=time.time() + 5)
    with lease(files, NAME):
        pass


def test_a_lease_that_goes_while_it_is_read_holds_nothing(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(files)
    listed = files.list("leases", NAME)
    files.delete("leases", NAME, "0.json")
    with monkeypatch.context() as context:
        context.setattr(files, "list", lambda *_: listed)
        with lease(files, NAME):
            pass


def test_a_lease_is_read_again_while_a_beat_is_being_written(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(files)
    whole, reads = files.read, []

    def torn_once(*parts: str) -> bytes:
        reads.append(parts)
        return whole(*parts)[: 10 if len(reads) == 1 else None]

    monkeypatch.setattr(files, "read", torn_once)
    with pytest.raises(UserError, match="is being run by"), lease(files, NAME):
        pass
