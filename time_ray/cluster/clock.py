"""Where the time of a trial goes: seconds by what they were spent on."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias

Part: TypeAlias = Literal["data", "step", "merge", "evaluation", "store", "waiting"]  # what seconds are spent on


class Clock:
    """Seconds by part. Where one part runs within another, they count for the inner one alone.

    It is for one thread: what others do meanwhile takes no time of it.

    Args:
        now: Seconds.

    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._since = now()
        self._seconds: defaultdict[Part, float] = defaultdict(float)
        self._within: list[Part] = []
        self._thread = threading.get_ident()

    @contextmanager
    def at(self, part: Part) -> Iterator[None]:
        """The time of the block counts for the part."""
        if threading.get_ident() != self._thread:
            yield
            return
        self._count()
        self._within.append(part)
        try:
            yield
        finally:
            self._count()
            self._within.pop()

    def taken(self) -> Mapping[Part, float]:
        """Seconds since this was last asked."""
        self._count()
        found, self._seconds = self._seconds, defaultdict(float)
        return found

    def _count(self) -> None:
        now = self._now()
        if self._within:
            self._seconds[self._within[-1]] += now - self._since
        self._since = now
