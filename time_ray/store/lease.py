"""A lease says who is at work on a storage now, so that a second driver can say so instead of interleaving.

Whoever wants it asks first, then looks: of two that ask at once each sees the other, and one steps back, whatever
their clocks say. A lease is alive while its file is written anew; its age is told by the storage's own clock. A process
of this host that does not beat is asked for itself: it may be stopped, and then it still holds what it held.
"""

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pyarrow.fs import FileInfo

from time_ray.core.errors import StoreError, UserError
from time_ray.core.ray_job import ray_job
from time_ray.store.files import Files
from time_ray.store.processes import has_ended, host_id, is_stopped, start_of
from time_ray.store.sealed import sealed, unsealed

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
PAUSE_SECONDS = 0.1
READS = 5
LEASES = "leases"
CLEANING = ".cleaning"  # the name under which the whole storage is held; no experiment can be called so

log = logging.getLogger(__name__)


class Holder(NamedTuple):
    """A lease as it was read."""

    name: str
    file: str
    fields: dict[str, Any]

    @property
    def is_here(self) -> bool:
        """Whether its process is one of those that this one can see."""
        fields = self.fields
        return bool(fields["host"] == socket.gethostname() and fields.get("host_id", host_id()) == host_id())

    def __str__(self) -> str:
        what = "the storage is being cleaned" if self.name == CLEANING else f"sweep '{self.name}' is being run"
        since = time.strftime("%H:%M:%S", time.localtime(float(self.fields["since"])))
        job = f" as Ray job {self.fields['job']}" if "job" in self.fields else ""
        return f"{what} by process {self.fields['pid']} on {self.fields['host']}{job}, since {since}"


@contextmanager
def lease(files: Files, name: str, lost: Callable[[str], None] = log.error) -> Iterator[str]:
    """Hold the lease of a sweep, or of CLEANING, while the block runs; gives the name of its file.

    Args:
        files: The storage.
        name: What is held.
        lost: Called, at most once and in a thread of its own, with why the lease is no longer ours: this process was
            stopped or cut off for so long that another has taken it, or the storage is gone. The block must end then.

    Raises:
        UserError: A live process holds it, or the other kind.

    """
    mine, pid = f"{uuid.uuid4().hex}.json", os.getpid()
    me: dict[str, object] = {"host": socket.gethostname(), "pid": pid, "since": time.time(), "holds": False}
    me |= {"host_id": host_id(), "start": start_of(pid)}
    if job := ray_job(os.environ):
        me["job"] = job
    _write(files, name, mine, me)
    while rivals := _rivals(files, name, mine):
        first = next((rival for rival in rivals if _is_before(rival, mine, me)), None)
        if first is not None:
            files.delete(LEASES, name, mine)
            raise UserError(f"storage: {files.shown}: {first}; {_remedy(first)}")
        time.sleep(PAUSE_SECONDS)  # it asked later, and steps back
    me["holds"] = True
    asked = _clock()
    _write(files, name, mine, me)
    files.landmark = LEASES
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(files, name, mine, me, asked, stop, lost), daemon=True)
    thread.start()
    try:
        yield mine
    finally:
        stop.set()
        thread.join()
        files.landmark = None
        with contextlib.suppress(StoreError):  # what is left behind is stale soon
            files.delete(LEASES, name, mine)


def holders(files: Files) -> list[Holder]:
    """Every live lease on the storage."""
    listed = files.list(LEASES, recursive=True)
    return [holder for file in listed if not is_stale(files, file) and (holder := _read(files, file))]


def is_stale(files: Files, file: FileInfo, now: float | None = None) -> bool:
    """Whether nobody holds this lease any more: its process on this host is gone, or it beats no more elsewhere."""
    holder = _read(files, file)
    if holder is not None and holder.is_here:
        return _is_gone(holder.fields)
    return bool((time.time() if now is None else now) - file.mtime_ns / 1e9 > STALE_SECONDS)


def _rivals(files: Files, name: str, mine: str) -> list[Holder]:
    """Live leases that exclude ours; the remains of dead ones are removed."""
    listed = files.list(LEASES, recursive=True)
    now = next((file.mtime_ns / 1e9 for file in listed if file.base_name == mine), time.time())
    found = []
    for file in listed:
        folder = file.path.split("/")[-2]
        if file.base_name == mine or (name != CLEANING and folder not in (name, CLEANING)):
            continue
        if is_stale(files, file, now):
            files.delete(LEASES, folder, file.base_name)
        elif holder := _read(files, file):
            found.append(holder)
    return found


def _is_before(other: Holder, mine: str, me: dict[str, object]) -> bool:
    return bool(other.fields["holds"] or (other.fields["since"], other.file) < (me["since"], mine))


def _remedy(holder: Holder) -> str:
    pid = holder.fields["pid"]
    if holder.is_here and is_stopped(pid):
        return f"it is stopped: let it go on (kill -CONT {pid}), or end it (kill -KILL {pid})"
    return "wait for it, or end it"


def _keep(
    files: Files,
    name: str,
    mine: str,
    me: dict[str, object],
    beaten: float,
    stop: threading.Event,
    lost: Callable[[str], None],
) -> None:
    """Beats until it is stopped, or the lease is lost. A late beat counts only where nobody else has come meanwhile."""
    while not stop.wait(BEAT_SECONDS):
        now = _clock()
        try:
            is_there = files.renew(sealed({**me, "beat": time.time()}), LEASES, name, mine)
            others = _rivals(files, name, mine) if not is_there or _clock() - beaten > STALE_SECONDS else []
        except StoreError:
            continue  # the next beat may get through
        other = next((other for other in others if other.fields["holds"]), None)
        if not is_there or other:
            lost(_why_lost(files, other))
            return
        beaten = now


def _why_lost(files: Files, other: Holder | None) -> str:
    try:
        files.check_there()
    except StoreError as error:
        return str(error)
    if other is None:
        return f"storage: {files.shown}: the lease of this process was removed there; run the same command again"
    why = "this process was stopped, or could not reach the storage, for too long; it ends, and the other goes on"
    return f"storage: {files.shown}: {other}: {why}"


def _clock() -> float:
    """Seconds that go on while this process is stopped, and while its host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _write(files: Files, name: str, mine: str, me: dict[str, object]) -> None:
    files.write(sealed({**me, "beat": time.time()}), LEASES, name, mine)


def _read(files: Files, file: FileInfo) -> Holder | None:
    """A lease; None if it went meanwhile, is none, or is so new that its writer will see ours."""
    folder, name = file.path.split("/")[-2:]
    for _ in range(READS):
        data = files.find(LEASES, folder, name)
        if data is None:
            return None
        fields = unsealed(data)
        if fields is not None:
            return Holder(folder, name, fields) if _is_lease(fields) else None
        time.sleep(0.05)  # it is being written just now
    return None


def _is_lease(fields: object) -> bool:
    """Whether it says what a lease must: anything sealed may lie there."""
    if not isinstance(fields, dict):
        return False
    kinds = {"host": (str,), "pid": (int,), "since": (int, float), "holds": (bool,)}
    return all(isinstance(fields.get(name), kind) for name, kind in kinds.items())


def _is_gone(holder: dict[str, Any]) -> bool:
    return has_ended(holder["pid"], int(holder.get("start", 0)))
