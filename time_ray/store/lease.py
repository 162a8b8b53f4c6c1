"""A lease says who is at work on a storage now, so that a second driver can say so instead of interleaving.

Whoever wants it asks first, then looks: of two that ask at once each sees the other, and one steps back, whatever
their clocks say. A lease is alive while its file is written anew; its age is told by the storage's own clock.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pyarrow.fs import FileInfo

from time_ray.core.errors import StoreError, UserError
from time_ray.core.ray_job import ray_job
from time_ray.store.files import Files
from time_ray.store.sealed import sealed, unsealed

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
PAUSE_SECONDS = 0.1
READS = 5
LEASES = "leases"
CLEANING = ".cleaning"  # the name under which the whole storage is held; no experiment can be called so


class Holder(NamedTuple):
    """A lease as it was read."""

    name: str
    file: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        what = "the storage is being cleaned" if self.name == CLEANING else f"sweep '{self.name}' is being run"
        since = time.strftime("%H:%M:%S", time.localtime(float(self.fields["since"])))
        job = f" as Ray job {self.fields['job']}" if "job" in self.fields else ""
        return f"{what} by process {self.fields['pid']} on {self.fields['host']}{job}, since {since}"


@contextmanager
def lease(files: Files, name: str) -> Iterator[str]:
    """Hold the lease of a sweep, or of CLEANING, while the block runs; gives the name of its file.

    UserError if a live process holds it, or the other kind.
    """
    mine = f"{uuid.uuid4().hex}.json"
    me: dict[str, object] = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), "holds": False}
    if job := ray_job(os.environ):
        me["job"] = job
    _beat(files, name, mine, me)
    while rivals := _rivals(files, name, mine):
        first = next((rival for rival in rivals if _is_before(rival, mine, me)), None)
        if first is not None:
            files.delete(LEASES, name, mine)
            raise UserError(f"storage: {files.shown}: {first}; wait for it, or end it")
        time.sleep(PAUSE_SECONDS)  # it asked later, and steps back
    me["holds"] = True
    _beat(files, name, mine, me)
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(files, name, mine, me, stop), daemon=True)
    thread.start()
    try:
        yield mine
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(StoreError):  # what is left behind is stale soon
            files.delete(LEASES, name, mine)


def holders(files: Files) -> list[Holder]:
    """Every live lease on the storage."""
    listed = files.list(LEASES, recursive=True)
    return [holder for file in listed if not is_stale(files, file) and (holder := _read(files, file))]


def is_stale(files: Files, file: FileInfo, now: float | None = None) -> bool:
    """Whether nobody holds this lease any more: it beats no more, or its process on this machine is gone."""
    if (time.time() if now is None else now) - file.mtime_ns / 1e9 > STALE_SECONDS:
        return True
    holder = _read(files, file)
    return holder is not None and _is_gone(holder.fields)


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
    return other.fields["holds"] or (other.fields["since"], other.file) < (me["since"], mine)


def _keep(files: Files, name: str, mine: str, me: dict[str, object], stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with contextlib.suppress(StoreError):  # the next beat may get through
            _beat(files, name, mine, me)


def _beat(files: Files, name: str, mine: str, me: dict[str, object]) -> None:
    files.write(sealed({**me, "beat": time.time()}), LEASES, name, mine)


def _read(files: Files, file: FileInfo) -> Holder | None:
    """A lease; None if it went meanwhile, or is so new that its writer will see ours."""
    folder, name = file.path.split("/")[-2:]
    for _ in range(READS):
        data = files.find(LEASES, folder, name)
        if data is None:
            return None
        fields = unsealed(data)
        if fields is not None:
            return Holder(folder, name, fields)
        time.sleep(0.05)  # a beat is being written just now
    return None


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return False
    pid = int(holder["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as somebody else's
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether the process has ended, and only its parent has not asked how: the first of a container may never do."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:  # it went meanwhile, or this system has no such files
        return False
