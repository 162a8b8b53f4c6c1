"""The process that speaks with Ray: nothing of it is left, whatever ended it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from time_ray.cluster import ray_process
from time_ray.cluster.messages import COMMANDS, Drain, to_line
from time_ray.cluster.ray_cluster import RAYS, Parts
from time_ray.cluster.ray_process import RayLostError, RayProcess, end_session
from time_ray.core.errors import UserError
from time_ray.model_needs import Needs

ONE = Needs(workers=1, gpus=None, accelerator=None, threads=1, loaders=1, accumulate=1, recompute=False, compile=False)


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where folders for Ray are made: it must have a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_a_folder_is_there_for_its_owner_alone_and_then_gone(root: Path) -> None:
    with ray_process._folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "session" / "logs").mkdir(parents=True)
    assert not list(root.iterdir())


def test_a_folder_of_a_dead_sweep_is_removed_and_that_of_a_living_one_is_not(root: Path) -> None:
    (root / "tr-dead.lock").touch()
    (root / "tr-dead" / "session").mkdir(parents=True)
    (root / "somebody else's").mkdir()
    with ray_process._folder() as alive, ray_process._folder():
        assert alive.is_dir()
    assert [path.name for path in root.iterdir()] == ["somebody else's"]


def test_a_session_is_ended_with_children_that_have_groups_of_their_own() -> None:
    code = "import os, time; os.fork() or os.setpgid(0, 0); os.write(1, f'{os.getpid()}\\n'.encode()); time.sleep(100)"
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    pids = [int(leader.stdout.readline()) for _ in range(2)]
    assert leader.pid in pids
    end_session(leader.pid)
    leader.wait()
    leader.stdout.close()
    for pid in pids:
        for _ in range(100):  # an orphan is reaped by another process
            if not is_running(pid):
                break
            time.sleep(0.05)
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while it is read
        return False


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("out of cheese", "out of cheese"),
        ("[2026-11-26 02:10:49,174 E 226 244] rpc_client.h:204: Cannot connect. Look.", "Cannot connect"),
    ],
    ids=["its own", "Ray's log"],
)
def test_a_process_that_ends_is_lost_with_its_last_words(
    root: Path, monkeypatch: pytest.MonkeyPatch, last: str, why: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(root / "broken"))
    (root / "broken").write_text(f"#!/bin/sh\necho '{last}' >&2\nexit 3\n")
    (root / "broken").chmod(0o755)
    why = f"^the process that speaks with Ray ended with status 3: {why}$"
    with pytest.raises(RayLostError, match=why), ray_process.ray_process([ONE]) as (process, _):
        process.ready()
    assert [path.name for path in root.iterdir()] == ["broken"]


@pytest.mark.parametrize("last_words", [b"", to_line(Drain(), COMMANDS)[:-3]], ids=["", "half a command"])
def test_a_sweep_that_is_gone_takes_its_ray_along(root: Path, last_words: bytes) -> None:
    """The end of its commands ends the process, however far it is, and its folder is gone."""
    assert "RAY_ADDRESS" not in os.environ
    folder = root / "tr-some"
    folder.mkdir()
    process = RayProcess(folder)
    process.connect([ONE])
    assert process._process.stdin is not None
    process._process.stdin.write(last_words)
    process._process.stdin.close()
    process._process.wait(60)
    assert not folder.exists()
    process.end()


def test_what_speaks_with_ray_goes_past_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "127.0.0.1" in (ray_process.variables()["no_proxy"] or "").split(",")


def test_a_short_folder_is_found_where_temporary_files_have_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with ray_process._folder() as folder:
        session = folder / RAYS / "session_2026-01-01_00-00-00_000000_1234567" / "sockets"
        session.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(session / "plasma_store"))
        assert ray_process.variables()["TMPDIR"] == str(folder.parent)
    assert not list(long.iterdir())


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("nowhere", "no such folder"),
        ("file", "no such folder"),
        ("x" * 80, "its path is too long for Ray's sockets ("),
        pytest.param(
            "closed", "cannot be written", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
        ),
    ],
)
def test_a_folder_for_ray_that_will_not_do_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ("x" * 80)).mkdir()
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / name))
    with pytest.raises(UserError) as refused:
        ray_process.folder_root()
    (line,) = refused.value.faults
    assert line.startswith(f"RAY_TMPDIR: {tmp_path / name}: {fault}")
    assert "; set RAY_TMPDIR to a folder that can be written, of " in line


def test_a_part_of_ray_that_ends_while_ray_starts_is_missed_at_once(tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "gcs_server")
    parts = Parts()
    assert parts.lost() is None
    with subprocess.Popen([program, "60"]) as process:
        while psutil.Process(process.pid).name() != "gcs_server":
            time.sleep(0.01)
        assert parts.lost() is None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert parts.lost() == "gcs_server"
    assert parts.lost() == "gcs_server"
