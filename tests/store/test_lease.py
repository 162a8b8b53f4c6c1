"""Of two drivers of one sweep the second is told so; the dead hold nothing."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from time_ray.core.errors import StoreError, UserError
from time_ray.store import lease as lease_module
from time_ray.store.files import Files
from time_ray.store.lease import CLEANING, STALE_SECONDS, holders, lease
from time_ray.store.sealed import sealed

NAME = "sweep"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path))


def left_behind(files: Files, silent: float = 0.0, name: str = NAME, **about: object) -> None:
    """The lease of a process that could not remove it, and has not beaten for so many seconds."""
    now = time.time()
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now - 5, "holds": True, **about}
    files.write(sealed(holder), "leases", name, "0.json")
    os.utime(files.path("leases", name, "0.json"), (now - silent, now - silent))


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


def test_a_zombie_holds_nothing(files: Files) -> None:
    """It has ended, but its parent has not asked how: the first process of a container may never do."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        left_behind(files, pid=process.pid)
        with lease(files, NAME):
            assert len(files.list("leases", NAME)) == 1


def test_a_lease_of_another_machine_holds_while_it_beats(files: Files) -> None:
    left_behind(files, host="elsewhere", pid=1)
    with pytest.raises(UserError, match="process 1 on elsewhere"), lease(files, NAME):
        pass


def test_a_lease_that_beats_no_more_is_released(files: Files) -> None:
    left_behind(files, STALE_SECONDS + 1, host="elsewhere", pid=1)
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1


def test_a_later_comer_steps_back_for_us(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(files, since=time.time() + 5, holds=False)
    slept = []

    def steps_back(seconds: float) -> None:
        slept.append(seconds)
        files.delete("leases", NAME, "0.json")

    monkeypatch.setattr("time_ray.store.lease.time.sleep", steps_back)
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1
    assert len(slept) == 1


def test_whoever_holds_it_keeps_it_whatever_the_clocks_say(files: Files) -> None:
    left_behind(files, host="clock is ahead", since=time.time() + 1000)
    with pytest.raises(UserError, match="on clock is ahead"), lease(files, NAME):
        pass


def test_of_many_that_ask_at_once_at_most_one_holds_at_a_time(files: Files) -> None:
    held, most, refused, lock = [], [], [], threading.Lock()

    def ask() -> None:
        try:
            with lease(Files(files.uri), NAME):
                with lock:
                    held.append(1)
                    most.append(len(held))
                time.sleep(0.02)
                with lock:
                    held.pop()
        except UserError:
            refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) + len(refused) == 8


def test_cleaning_and_sweeps_exclude_each_other(files: Files) -> None:
    with lease(files, NAME), pytest.raises(UserError, match="sweep 'sweep' is being run by"), lease(files, CLEANING):
        pass
    with lease(files, CLEANING), pytest.raises(UserError, match="the storage is being cleaned by"), lease(files, NAME):
        pass
    assert holders(files) == []


def test_a_beat_that_fails_is_not_the_last(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time_ray.store.lease.BEAT_SECONDS", 0.01)
    beats = []

    def failing(*_: object) -> None:
        beats.append(1)
        raise StoreError("out of reach")

    with lease(files, NAME), monkeypatch.context() as context:
        context.setattr(files, "renew", failing)
        while len(beats) < 3:
            time.sleep(0.01)


def test_a_lease_that_goes_while_it_is_read_holds_nothing(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(files)
    listed = files.list("leases", NAME)
    files.delete("leases", NAME, "0.json")
    with monkeypatch.context() as context:
        context.setattr(files, "list", lambda *_, **__: listed)
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


def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Beats come quickly, and the clock goes on by as much as a test says."""
    late: list[float] = [0.0]
    real = lease_module._clock
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(lease_module, "_clock", lambda: real() + late[0])

    def go_on(seconds: float) -> None:
        late[0] += seconds

    return go_on


def told(lost: list[str]) -> str:
    """Why the lease was lost, within seconds."""
    for _ in range(500):
        if lost:
            return lost[0]
        time.sleep(0.01)
    raise AssertionError("nothing was lost")


def test_whoever_was_stopped_for_too_long_hears_who_has_taken_over(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other removed the lease that did not beat, or ran before this one beat again."""
    for removes in (True, False):
        go_on, lost = clock(monkeypatch), list[str]()
        with lease(files, NAME, lost.append) as mine:
            left_behind(files, host="elsewhere", pid=7)
            if removes:
                files.delete("leases", NAME, mine)
            else:
                go_on(STALE_SECONDS + 1)
            why = told(lost)
        assert "sweep 'sweep' is being run by process 7 on elsewhere" in why
        assert why.endswith("it ends, and the other goes on")
        assert [file.base_name for file in files.list("leases", NAME)] == ["0.json"]
        files.delete("leases", NAME, "0.json")


def test_whoever_was_stopped_and_missed_by_nobody_goes_on(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, lost = clock(monkeypatch), list[str]()
    with lease(files, NAME, lost.append):
        go_on(STALE_SECONDS + 1)
        time.sleep(0.1)
    assert lost == []


def test_a_storage_that_was_removed_is_called_that(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch)
    lost: list[str] = []
    with lease(files, NAME, lost.append):
        shutil.rmtree(files.root)
        assert told(lost).startswith(f"storage: {files.root} is gone: it was removed or unmounted while it was in use")
        with pytest.raises(StoreError, match="is gone"):
            files.write(b"", "anything")
        assert not Path(files.root).exists()


@pytest.fixture
def stopped() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        yield process.pid
        process.kill()


def test_a_stopped_process_of_this_host_is_not_dead(files: Files, stopped: int) -> None:
    left_behind(files, STALE_SECONDS * 10, pid=stopped)
    remedy = rf"it is stopped: let it go on \(kill -CONT {stopped}\), or end it"
    with pytest.raises(UserError, match=remedy), lease(files, NAME):
        pass


def test_a_number_that_is_another_process_by_now_holds_nothing(files: Files) -> None:
    left_behind(files, start=12345)
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1


def test_a_number_of_another_host_of_the_same_name_says_nothing(files: Files) -> None:
    """Two containers, or this host before it started anew: its beats alone count."""
    left_behind(files, host_id="another", pid=dead_pid())
    with pytest.raises(UserError, match="is being run by"), lease(files, NAME):
        pass
    left_behind(files, STALE_SECONDS + 1, host_id="another")
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1


@pytest.mark.parametrize("ahead", [-1e6, 1e6])
def test_a_wrong_clock_neither_holds_longer_nor_takes_over(
    files: Files, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """The storage's own clock tells the age of a lease."""
    real = time.time
    left_behind(files, host="elsewhere")
    with monkeypatch.context() as context:
        context.setattr("time_ray.store.lease.time.time", lambda: real() + ahead)
        with pytest.raises(UserError, match="on elsewhere"), lease(files, NAME):
            pass
    left_behind(files, STALE_SECONDS + 1, host="elsewhere")
    monkeypatch.setattr("time_ray.store.lease.time.time", lambda: real() + ahead)
    with lease(files, NAME):
        assert len(files.list("leases", NAME)) == 1


@pytest.mark.parametrize("fields", [{"a": 1}, {"host": 7, "pid": "x", "since": None, "holds": "yes"}])
def test_what_is_sealed_and_no_lease_holds_nothing(files: Files, fields: dict[str, object]) -> None:
    files.write(sealed(fields), "leases", NAME, "0.json")
    assert holders(files) == []
    with lease(files, NAME):
        pass
