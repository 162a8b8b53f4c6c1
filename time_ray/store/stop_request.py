"""Stop requests: whoever reaches a storage asks the sweep that runs on it to stop, and its driver looks for them.

A request is a file that names the lease it is for. So none is left for a sweep that starts later.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from time_ray.core.errors import StoreError
from time_ray.store.files import Files
from time_ray.store.lease import Holder, holders

STOPS = "stops"
POLL_SECONDS = 2.0

How = Literal["finish", "now"]  # as Ctrl-C once, and twice


def request_stop(files: Files, name: str, how: How) -> Holder | None:
    """The sweep of this name is asked to stop, and this is who runs it; None if nobody does."""
    holder = next((holder for holder in holders(files) if holder.name == name), None)
    if holder is not None:
        files.write(b"", STOPS, name, _request(holder.file, how))
    return holder


@contextmanager
def stop_requests(
    files: Files, name: str, lease: str, honour: Callable[[How], None], seconds: float = POLL_SECONDS
) -> Iterator[None]:
    """Stop requests for the holder of this lease are honoured while the block runs, each once; then none is left.

    Args:
        files: The storage.
        name: The sweep's.
        lease: The name of the lease's file.
        honour: Called with what is asked for, in a thread of its own.
        seconds: Between two looks.

    """
    over = threading.Event()

    def look() -> None:
        seen: set[How] = set()
        while not over.is_set() and "now" not in seen:
            with contextlib.suppress(StoreError):  # the next look may get through
                for how in _asked(files, name, lease):
                    if how not in seen and not over.is_set():
                        seen.add(how)
                        honour(how)
            over.wait(seconds)

    thread = threading.Thread(target=look, daemon=True, name="stop requests")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(StoreError):  # they are for this lease only
            if files.list(STOPS, name):
                files.delete_folder(STOPS, name)


def _asked(files: Files, name: str, lease: str) -> Iterator[How]:
    found = {file.base_name for file in files.list(STOPS, name)}
    hows: tuple[How, ...] = ("finish", "now")
    return (how for how in hows if _request(lease, how) in found)


def _request(lease: str, how: How) -> str:
    return f"{lease.removesuffix('.json')}.{how}"
