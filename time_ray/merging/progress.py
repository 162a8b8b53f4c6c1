"""How many bytes of a streamed merge are done."""

import threading
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes read and written so far, and those there will be as far as is known."""


class Meter:
    """Counts bytes from any thread and tells the listener."""

    def __init__(self, listener: Progress | None) -> None:
        self.listener = listener
        self.done = 0
        self.told = 0
        self.total = 0
        self.lock = threading.Lock()

    def expect(self, count: int) -> None:
        """So many more bytes are to come."""
        with self.lock:
            self.total += count

    def end(self) -> None:
        """All is done."""
        if self.listener:
            self.listener(self.done, self.done)

    def tick(self, count: int) -> None:
        """So many more bytes are done; the listener hears of each thousandth."""
        if not self.listener:
            return
        with self.lock:
            self.done += count
            self.total = max(self.total, self.done)
            if (self.done - self.told) * 1000 >= self.total:
                self.told = self.done
                self.listener(self.done, self.total)
