"""The board of a sweep: who is making which expert, what happened, and whether to stop.

Plain and in memory: a sweep on Ray keeps one in an actor, a sweep in one process keeps it directly.
Nothing on it is needed for a right result; it saves double work and feeds the display.
"""

import time
from typing import Any, Protocol

LEASE_SECONDS = 30.0

Event = dict[str, Any]


class Board(Protocol):
    """What a trial needs of the board."""

    def claim(self, key: str, holder: str) -> bool:
        """Whether the expert is the holder's to make: nobody alive holds it."""

    def release(self, key: str, holder: str) -> None:
        """The holder no longer makes the expert."""

    def renew(self, holder: str) -> None:
        """The holder is alive, and its claims stand."""

    def tell(self, event: Event) -> None:
        """The event is on the board."""

    def draining(self) -> bool:
        """Whether trials should finish what they are at and stop."""


class LocalBoard:
    """The board itself."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, float]] = {}
        self._events: list[Event] = []
        self._draining = False

    def claim(self, key: str, holder: str) -> bool:
        """See Board."""
        current, renewed = self._claims.get(key, (holder, time.monotonic()))
        if current != holder and time.monotonic() - renewed < LEASE_SECONDS:
            return False
        self._claims[key] = (holder, time.monotonic())
        return True

    def release(self, key: str, holder: str) -> None:
        """See Board."""
        if self._claims.get(key, ("", 0.0))[0] == holder:
            del self._claims[key]

    def renew(self, holder: str) -> None:
        """See Board."""
        now = time.monotonic()
        self._claims.update({key: (h, now) for key, (h, _) in self._claims.items() if h == holder})

    def tell(self, event: Event) -> None:
        """See Board."""
        self._events.append(event)

    def draining(self) -> bool:
        """See Board."""
        return self._draining

    def drain(self) -> None:
        """Trials stop once they have finished what they are at."""
        self._draining = True

    def events(self) -> list[Event]:
        """What was told since the last time this was asked."""
        told, self._events = self._events, []
        return told
