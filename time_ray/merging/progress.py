"""How many bytes of a streamed merge are done."""

import threading
from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes read and written so far, and those there will be as far as is known."""


class ProgressMeter:
    """Counts bytes from any thread and tells the callback."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self.callback = callback
        self.done = 0
        self.reported = 0
        self.total = 0
        self.lock = threading.Lock()

    def expect(self, count: int) -> None:
        """So many more bytes are to come."""
        with self.lock:
            self.total += count

    def end(self) -> None:
        """All is done."""
        if self.callback:
            self.callback(self.done, self.done)

    def tick(self, count: int) -> None:
        """So many more bytes are done; the callback is called at each thousandth."""
        if not self.callback:
            return
        with self.lock:
            self.done += count
            self.total = max(self.total, self.done)
            if (self.done - self.reported) * 1000 >= self.total:
                self.reported = self.done
                self.callback(self.done, self.total)
