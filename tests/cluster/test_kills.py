"""Processes of a real sweep are killed at random moments; the same command ends in the same bytes, and leaves nothing.

Every kind of process is killed five times. Where a sweep goes on by itself, all five hit one run of it.
"""

import contextlib
import os
import random
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

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]

Make = Callable[..., Path]
KILLS = 5
LONGEST_SECONDS = 600  # of one command, however often it is hit
EXPERIMENT = {
    "init": ["ft", "ema"],
    "deploy": ["ema", "all"],
    "technique": ["average"],
    "budget": "100 steps",
    "stream": {"tasks": 5},
}
RECOVERED = {
    "trial": "ray::ImplicitFunc",  # and with it its one worker; groups of workers are test_lost_hosts' matter
    "coordinator": "ray::LocalCoordinator",
    "Ray driver": "time_ray.cluster.ray_driver",
    "raylet": "raylet/raylet",
    "GCS": "gcs/gcs_server",
}


class Command:
    """A sweep in processes of its own."""

    def __init__(self, path: Path, folder: str) -> None:
        words = [sys.executable, "-c", "from time_ray.cli import main; main()", "sweep", str(path)]
        self.out, self.err = path.with_suffix(".out"), path.with_suffix(".err")
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(words, stdout=out, stderr=err, env={**os.environ, "RAY_TMPDIR": folder})
        self.started = time.monotonic()
        self.seen: dict[int, float] = {}

    def below(self, title: str = "") -> list[psutil.Process]:
        """Processes that this sweep has started, by a part of their command line."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.seen[process.pid] = process.create_time()
                    if title in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def running(self) -> bool:
        assert time.monotonic() - self.started < LONGEST_SECONDS, self.err.read_text()
        return self.process.poll() is None

    def left(self) -> list[int]:
        """Processes that this sweep has started and that still live, a few seconds after it has ended."""
        for _ in range(100):
            alive = [pid for pid, created in self.seen.items() if is_alive(pid, created)]
            if not alive:
                return []
            time.sleep(0.1)
        return alive


def is_alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def content(path: Path) -> tuple[Any, ...]:
    """Recipes, digests and scores of everything in the store."""
    opened = api.open_experiment(path)
    store = opened.store
    weights = {key: store.entry("weights", key) for key in store.keys("weights")}
    scores = {key: store.entry("scores", key) for key in store.keys("scores")}
    return (
        {key: (entry["recipe"], entry["digest"]) for key, entry in weights.items() if entry},
        {key: (entry["recipe"], entry["accuracy"]) for key, entry in scores.items() if entry},
        [(r.cell.key, r.done, [(row.task, row.scores) for row in r.rows]) for r in api.status(opened)],
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> tuple[tuple[Any, ...], str]:
    path = new_experiment(tmp_path_factory.mktemp("undisturbed"), **EXPERIMENT)
    words = [sys.executable, "-c", "from time_ray.cli import main; main()", "sweep", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return content(path), done.stdout


@pytest.fixture
def folder() -> Iterator[str]:
    """A short path: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="kills-") as made:
        yield made


def kill_some(command: Command, title: str, chance: random.Random) -> int:
    """Five times, wait for such a process, give it a random time, and kill it."""
    killed, done = 0, set[int]()
    while killed < KILLS and command.running():
        for process in command.below(title):
            if process.pid not in done:
                done.add(process.pid)
                time.sleep(chance.uniform(0, 8))
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed += 1
                break
        time.sleep(0.1)
    while command.running():
        command.below()
        time.sleep(0.1)
    return killed


@pytest.mark.parametrize("kind", RECOVERED)
def test_a_sweep_survives_the_loss_of(
    undisturbed: tuple[tuple[Any, ...], str], new_experiment: Make, tmp_path: Path, folder: str, kind: str
) -> None:
    path = new_experiment(tmp_path, **EXPERIMENT, run={"workers": 1, "trials": 1, "max_failures": 10})
    command = Command(path, folder)
    killed = kill_some(command, RECOVERED[kind], random.Random(kind))
    assert killed == KILLS
    assert command.process.returncode == 0, command.err.read_text()
    assert (content(path), command.out.read_text()) == undisturbed
    assert command.left() == []
    assert not list(Path(folder).iterdir())


@pytest.mark.parametrize("all_of_it", [False, True], ids=["the sweep itself", "every process at once"])
def test_the_same_command_resumes_after_the_loss_of(
    undisturbed: tuple[tuple[Any, ...], str], new_experiment: Make, tmp_path: Path, folder: str, *, all_of_it: bool
) -> None:
    path = new_experiment(tmp_path, **EXPERIMENT, run={"workers": 1, "trials": 1})
    chance = random.Random(all_of_it)
    for _ in range(KILLS):
        command = Command(path, folder)
        while not command.below(RECOVERED["trial"]) and command.running():
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 7))
        others = command.below()
        command.process.kill()
        for process in others if all_of_it else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert command.process.wait() == -signal.SIGKILL
        assert command.left() == []
    command = Command(path, folder)
    while command.running():
        command.below()
        time.sleep(0.1)
    assert command.process.returncode == 0, command.err.read_text()
    assert (content(path), command.out.read_text()) == undisturbed
    assert command.left() == []
    assert not list(Path(folder).iterdir())
