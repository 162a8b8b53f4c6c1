"""A lease says who is running a sweep now, so that a second driver can say so instead of interleaving."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from time_ray.core.errors import StoreError, UserError
from time_ray.store.files import Files
from time_ray.store.sealed import sealed, unsealed

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
READS = 5


@contextmanager
def lease(files: Files, name: str) -> Iterator[None]:
    """Hold the lease of a sweep while the block runs. UserError if another live process holds it."""
    mine = f"{uuid.uuid4().hex}.json"
    me: dict[str, object] = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    _beat(files, name, mine, me)
    holder = _holder(files, name, mine, me)
    if holder is not None:
        files.delete("leases", name, mine)
        since = time.strftime("%H:%M:%S", time.localtime(float(str(holder["since"]))))
        who = f"process {holder['pid']} on {holder['host']}, since {since}"
        raise UserError(f"storage: {files.shown}: sweep '{name}' is being run by {who}; wait for it, or end it")
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(files, name, mine, me, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        files.delete("leases", name, mine)


def _keep(files: Files, name: str, mine: str, me: dict[str, object], stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        _beat(files, name, mine, me)


def _beat(files: Files, name: str, mine: str, me: dict[str, object]) -> None:
    files.write(sealed({**me, "beat": time.time()}), "leases", name, mine)


def _holder(files: Files, name: str, mine: str, me: dict[str, object]) -> dict[str, object] | None:
    """Another live holder that came first; the remains of dead ones are removed."""
    for file in files.list("leases", name):
        if file.base_name == mine:
            continue
        other = _read(files, name, file.base_name)
        if other is None:
            continue
        if _is_dead(other):
            files.delete("leases", name, file.base_name)
        elif (other["since"], file.base_name) < (me["since"], mine):
            return dict(other)
    return None


def _read(files: Files, name: str, file: str) -> dict[str, Any] | None:
    """A lease; None if it went meanwhile, or is so new that its writer will see ours."""
    for _ in range(READS):
        try:
            found = unsealed(files.read("leases", name, file))
            if found is not None:
                return found
            time.sleep(0.05)  # a beat is being written just now
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return None
    return None


def _is_dead(other: dict[str, object]) -> bool:
    if time.time() - float(str(other["beat"])) > STALE_SECONDS:
        return True
    if other["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(str(other["pid"])), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as somebody else's
    return False
