"""Something that is done every now and then while something else runs."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

POLL_SECONDS = 0.25


@contextmanager
def polling(poll: Callable[[], None], seconds: float = POLL_SECONDS) -> Iterator[None]:
    """Call `poll` in a thread of its own while the block runs, and once more after it.

    Raises:
        Exception: What `poll` raised; it was not called again.

    """
    over = threading.Event()

    def run() -> None:
        last = False
        while not last:
            last = over.wait(seconds)
            poll()

    with ThreadPoolExecutor(1, thread_name_prefix="polling") as thread:
        polled = thread.submit(run)
        try:
            yield
        finally:
            over.set()
        polled.result()
