"""A sweep's end of the process that speaks with Ray (see ray_driver.py): whatever ends it, nothing of it is left."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from time_ray import python_child
from time_ray.cluster.messages import (
    COMMANDS,
    CONNECT,
    DRIVER_EVENTS,
    Connect,
    Drain,
    MoreTrials,
    NoneLeft,
    RayLost,
    Ready,
    Refused,
    RunTrials,
    RunTuning,
    StartUps,
    Trials,
    TrialsEnded,
    TuningEnded,
    from_line,
    to_line,
)
from time_ray.cluster.ray_cluster import RAYS, check_address
from time_ray.cluster.room import at_once, requested
from time_ray.core.errors import UserError
from time_ray.core.loopback import past_proxies
from time_ray.core.tuning import Candidate
from time_ray.events import TrialEvent
from time_ray.model_needs import Needs
from time_ray.private_files import own_file, private_folder
from time_ray.version import COMMIT_VARIABLE, git_commit

MANY = 1_000_000  # trials: more than any cluster holds
GRACE_SECONDS = 15.0  # for leaving a cluster that others use, too
PREFIX = "tr-"
SOCKET_BYTES = 107  # of a socket's path, on Linux
_SOCKET = f"/tr-01234567/{RAYS}/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
LONGEST_ROOT = SOCKET_BYTES - len(_SOCKET)
LOCK = ".lock"


class RayLostError(Exception):
    """Ray, or a part of it that nothing goes on without, has ended; what trials had finished is in the store."""


class RayProcess:
    """The process that speaks with Ray, as long as the sweep needs it.

    Attributes:
        start_ups: What trials of the last round took to start.

    """

    def __init__(self, folder: Path) -> None:
        self.start_ups = StartUps(None, None)
        self._folder = folder
        self._lock = threading.Lock()
        self._errors = folder / "errors.txt"
        with self._errors.open("wb") as errors:
            self._process = python_child.start(
                ["-m", "time_ray.cluster.ray_driver"],
                variables=variables(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("TIME_RAY_DEBUG") else errors,
                session=True,  # by it all that it starts is known
            )

    def connect(self, needs: Collection[Needs]) -> None:
        """Ray is being started or joined, for trials with these needs."""
        threads, groups = max(need.threads for need in needs), any(need.workers > 1 for need in needs)
        self._send(to_line(Connect(threads, groups, str(self._folder)), CONNECT))

    def ready(self) -> Ready:
        """Ray is connected: what it holds.

        Raises:
            UserError: Ray cannot be used as it was asked for.
            RayLostError: Ray has ended.

        """
        while not isinstance(event := self._next(), Ready):
            continue
        return event

    def run_round(self, asked: RunTrials, take: Callable[[TrialEvent], None], more: Callable[[], Trials]) -> list[str]:
        """Run the trials until all have ended.

        Args:
            asked: The trials.
            take: Called with what trials tell, as it comes.
            more: What is to be run once all trials so far have ended, where more may follow; none ends it.

        Returns:
            Why trials ended early, if some did; one line each.

        Raises:
            RayLostError: Ray has ended; what trials had finished is in the store.

        """
        self._send(to_line(asked, COMMANDS))
        while not isinstance(event := self._next(), TrialsEnded):
            if isinstance(event, StartUps):
                self.start_ups = event
            elif isinstance(event, NoneLeft):
                self._send(to_line(MoreTrials(more()), COMMANDS))
            elif not isinstance(event, Ready | TuningEnded):
                take(event)
        return list(event.errors)

    def run_tuning(self, asked: RunTuning, take: Callable[[TrialEvent], None]) -> list[Candidate]:
        """Search for parameters; see `run_round`. The candidates, in order."""
        self._send(to_line(asked, COMMANDS))
        while not isinstance(event := self._next(), TuningEnded):
            if not isinstance(event, Ready | StartUps | NoneLeft | TrialsEnded):
                take(event)
        return list(event.candidates)

    def drain(self) -> None:
        """Trials stop once they have finished what they are at."""
        with contextlib.suppress(RayLostError):
            self._send(to_line(Drain(), COMMANDS))

    def end(self) -> None:
        """The process has ended, and so has everything it started."""
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        if os.environ.get("RAY_ADDRESS"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
        end_session(self._process.pid)  # also if it has ended itself: what it has started may live a little longer
        self._process.wait()
        _pipe(self._process.stdout).close()

    def _send(self, command: bytes) -> None:
        try:
            with self._lock:
                _pipe(self._process.stdin).write(command)
                _pipe(self._process.stdin).flush()
        except (OSError, ValueError):  # it has ended, or we have ended it
            raise self._lost() from None

    def _next(self) -> TrialEvent | Ready | StartUps | NoneLeft | TrialsEnded | TuningEnded:
        line = _pipe(self._process.stdout).readline()
        if not line.endswith(b"\n"):
            raise self._lost()
        event = from_line(line, DRIVER_EVENTS)
        if isinstance(event, Refused):
            raise UserError(*event.faults)
        if isinstance(event, RayLost):
            raise RayLostError(event.reason)
        return event

    def _lost(self) -> RayLostError:
        code = self._process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        last = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return RayLostError(": ".join([f"the process that speaks with Ray {how}", *map(_said, last)]))


def _said(line: str) -> str:
    """What a line says; of Ray's own log its first sentence, as the rest is advice for whoever runs the head."""
    logged = re.match(r"\[[^\]]*\] \S+:\d+: (.*?)(\. |$)", line)
    return logged[1] if logged else line


@contextmanager
def ray_process(needs: Collection[Needs]) -> Iterator[tuple[RayProcess, Path]]:
    """Ray is connected for trials with these needs while the block runs, with a folder for its files.

    Nothing of both is left after it.
    """
    with _folder() as folder:
        process = RayProcess(folder)
        try:
            process.connect(needs)
            yield process, folder
        finally:
            process.end()


def cluster_slots(needs: Mapping[str, Needs]) -> int:
    """How many trials of these models run at once on the cluster that RAY_ADDRESS names, if nothing else does.

    Where they differ it is the number of those of which the fewest do.

    Raises:
        UserError: Nothing answers there, or no trial fits.

    """
    check_address()
    with ray_process(needs.values()) as (ray, _):
        ready = ray.ready()
    requests = requested(needs, ready.nodes, can_grow=ready.can_grow)
    return min(at_once(ready.nodes, {request: MANY}) for request in requests.values())


def end_session(session: int) -> None:
    """No process of the session is alive, except this one if it is one of them."""
    while others := [pid for pid in _members(session) if pid != os.getpid()]:
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _members(session: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(rest[2]) == session and state not in "ZX":
                yield int(folder.name)


def folder_root() -> Path:
    """Where Ray's own files may lie: RAY_TMPDIR; else the system's temporary folder, or another that is short enough.

    Raises UserError where there is none.
    """
    named = os.environ.get("RAY_TMPDIR")
    roots = [named] if named else [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108 made safely
    faults = {root: _unfit(Path(root)) for root in roots}
    for root, fault in faults.items():
        if fault is None:
            return Path(root).resolve()
    where = "RAY_TMPDIR" if named else "temporary files"
    what = "; ".join(f"{root}: {fault}" for root, fault in faults.items())
    raise UserError(f"{where}: {what}; set RAY_TMPDIR to a folder that can be written, of {LONGEST_ROOT} bytes or less")


def _unfit(root: Path) -> str | None:
    """Why Ray cannot keep its files and sockets there; None: it can."""
    if not root.is_dir():
        return "no such folder"
    if not os.access(root, os.W_OK | os.X_OK):
        return "cannot be written"
    length = len(os.fsencode(root.resolve()))
    if length > LONGEST_ROOT and not os.environ.get("RAY_ADDRESS"):  # whoever joins a cluster makes no sockets
        return f"its path is too long for Ray's sockets ({length} bytes)"
    return None


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for Ray's own files while the block runs; those of sweeps that were killed are removed as well."""
    root = folder_root()
    for other in root.glob(f"{PREFIX}*{LOCK}"):
        _remove_if_left(other)
    folder = root / f"{PREFIX}{uuid.uuid4().hex[:8]}"
    lock, new = folder.with_suffix(LOCK), folder.with_suffix(".new")
    with new.open("x") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        new.rename(lock)  # it has this name only while it is locked, or its maker is dead
        private_folder(folder)
        try:
            yield folder
        finally:
            _remove(lock)


def _remove_if_left(lock: Path) -> None:
    """The folder is gone, unless the sweep that made it lives: it holds the lock."""
    with contextlib.suppress(OSError), own_file(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(lock)


def _remove(lock: Path) -> None:
    folder = lock.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():  # else the next sweep tries again
        lock.unlink(missing_ok=True)


def variables() -> dict[str, str | None]:
    """What changes in the environment of a process that speaks with Ray: it goes past any proxy on this machine."""
    ours = {**python_child.package_path(), COMMIT_VARIABLE: git_commit()}
    if _unfit(Path(tempfile.gettempdir())):  # Ray's processes make sockets there, too
        ours["TMPDIR"] = str(folder_root())
    return {**past_proxies(os.environ), **ours}


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101 both were asked for
    return pipe
