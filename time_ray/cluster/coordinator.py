"""The coordinator of a sweep: which trial makes what, what happened, and whether to stop.

It is plain and in memory: a sweep on Ray keeps one in an actor, a sweep in one process keeps it directly. No result
depends on it; it saves double work and feeds the display.
"""

import threading
import time
from collections.abc import Callable, Collection
from typing import Protocol

from time_ray.events import CellFailed, TrialEvent

LEASE_SECONDS = 30.0


class Coordinator(Protocol):
    """What a trial needs of the coordinator."""

    def lease(self, name: str, holder: str) -> bool:
        """Whether what has this name is now the holder's to make: nobody else holds it, or whoever does is dead.

        Args:
            name: What is to be made: an expert by its key, or scores by theirs.
            holder: Who asks. Its leases end LEASE_SECONDS after it was last heard of.

        """

    def release(self, name: str, holder: str) -> None:
        """The holder no longer makes it."""

    def renew(self, holder: str) -> None:
        """The holder is alive, and its leases stand."""

    def emit(self, event: TrialEvent) -> None:
        """The sweep will hear of the event."""

    def draining(self) -> bool:
        """Whether trials should finish what they are at and stop."""

    def failed(self, cells: Collection[str]) -> frozenset[str]:
        """Which of these cells, by key, have failed: a trial that is started again leaves them out."""


class LocalCoordinator:
    """The coordinator itself."""

    def __init__(self) -> None:
        self._leases: dict[str, str] = {}  # holders
        self._heard: dict[str, float] = {}  # when each holder of something was last heard of
        self._events: list[TrialEvent] = []
        self._draining = False
        self._failed: set[str] = set()

    def lease(self, name: str, holder: str) -> bool:
        """See Coordinator."""
        now, current = time.monotonic(), self._leases.get(name, holder)
        if current != holder and now - self._heard[current] < LEASE_SECONDS:
            return False
        self._leases[name] = holder
        self._heard[holder] = now
        return True

    def release(self, name: str, holder: str) -> None:
        """See Coordinator."""
        if self._leases.get(name) == holder:
            del self._leases[name]

    def renew(self, holder: str) -> None:
        """See Coordinator."""
        self._heard[holder] = time.monotonic()

    def emit(self, event: TrialEvent) -> None:
        """See Coordinator."""
        if isinstance(event, CellFailed):
            if event.cell in self._failed:
                return  # another worker of its trial has said why
            self._failed.add(event.cell)
        self._events.append(event)

    def draining(self) -> bool:
        """See Coordinator."""
        return self._draining

    def failed(self, cells: Collection[str]) -> frozenset[str]:
        """See Coordinator."""
        return frozenset(self._failed.intersection(cells))

    def drain(self) -> None:
        """Trials stop once they have finished what they are at."""
        self._draining = True

    def events(self) -> list[TrialEvent]:
        """What was emitted since the last time this was asked."""
        emitted, self._events = self._events, []
        return emitted


def take_all(coordinator: LocalCoordinator, take: Callable[[TrialEvent], None]) -> None:
    """Call `take` with every event since the last time."""
    for event in coordinator.events():
        take(event)


class Leases:
    """The leases of one trial: renewed while it lives, so that they end with it."""

    def __init__(self, coordinator: Coordinator, holder: str) -> None:
        self._coordinator = coordinator
        self._holder = holder
        self._names: set[str] = set()
        self._none_left = threading.Event()
        self._renewer: threading.Thread | None = None

    def acquire(self, name: str) -> bool:
        """Whether it is ours to make; if so, for as long as we live and do not release it."""
        ours = self._coordinator.lease(name, self._holder)
        if ours:
            self._names.add(name)
            self._keep()
        return ours

    def release(self, name: str) -> None:
        """It is made, or given up."""
        self._coordinator.release(name, self._holder)
        self._names.discard(name)
        if not self._names and self._renewer is not None:
            self._none_left.set()
            self._renewer.join()
            self._renewer = None

    def _keep(self) -> None:
        if self._renewer is None:
            self._none_left = threading.Event()
            self._renewer = threading.Thread(target=self._renew, args=(self._none_left,), daemon=True, name="leases")
            self._renewer.start()

    def _renew(self, over: threading.Event) -> None:
        while not over.wait(LEASE_SECONDS / 4):
            self._coordinator.renew(self._holder)
