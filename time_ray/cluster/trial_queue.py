"""Which trial starts next on the nodes of a cluster: the longest of those that fit and need not wait for another.

Trials of several sizes share the nodes. A small one may use the room that a larger one before it cannot use yet, but
never so that the larger one would have to wait for it: small trials together leave room for one of the larger kind.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from time_ray.cluster.room import Node, Request, at_once, fit
from time_ray.core.waiting import STARTS_AT_ONCE, WaitingTrials
from time_ray.trials import Trial

PATIENCE_SECONDS = 60.0  # a trial that was started and does not run by then has found no node with enough room


class TrialQueue:
    """See WaitingTrials; several threads may ask.

    Args:
        trials: In the order in which they are to start.
        requests: What each of them holds while it runs.
        limit: Trials at once; None: as many as fit.
        clock: Seconds.

    """

    def __init__(
        self,
        trials: Sequence[Trial],
        requests: Sequence[Request],
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = list(requests)
        self._limit = limit
        self._clock = clock
        self._waiting = WaitingTrials([trial.chain for trial in trials], requests, [trial.cost for trial in trials])
        self._running: set[int] = set()
        self._held: Counter[Request] = Counter()  # by running trials
        self._starting: dict[int, tuple[bool, float]] = {}  # whether in a new process, and since when
        self._processes = 0  # that were started: as many as ran at once
        self._took: dict[bool, list[float]] = {True: [], False: []}  # seconds, in a new process or one used again
        self._unplaced: dict[int, float] = {}  # trials that were to start and have no process yet, since when
        self._left = dict.fromkeys(range(len(trials)))  # trials that wait
        self._idle_since = clock()
        self._lock = threading.Lock()

    def add(self, trials: Sequence[Trial], requests: Sequence[Request]) -> None:
        """These wait as well, behind those that do."""
        with self._lock:
            self._left |= dict.fromkeys(range(len(self._requests), len(self._requests) + len(trials)))
            self._requests += requests
            self._waiting.add([trial.chain for trial in trials], requests, [trial.cost for trial in trials])
            self._idle_since = self._clock()

    @property
    def all_ended(self) -> bool:
        """Whether no trial waits or runs."""
        with self._lock:
            return not self._left and not self._running

    def next(self, nodes: Sequence[Node]) -> int | None:
        """The number of the trial that starts now on these nodes; None: none does."""
        with self._lock:
            if len(self._starting) >= STARTS_AT_ONCE or len(self._running) >= (self._limit or len(self._requests)):
                return None
            stuck = self._stuck(nodes)
            number = self._waiting.next(
                lambda request, before, kept: (
                    all(request.covers(other) for other in stuck) and self._fits(nodes, request, before, kept)
                ),
                lambda request: self._places(nodes, request),
            )
            if number is not None:
                self._running.add(number)
                self._held[self._requests[number]] += 1
                self._starting[number] = len(self._running) > self._processes, self._clock()
                self._processes = max(self._processes, len(self._running))
                self._unplaced[number] = self._clock()
                del self._left[number]
            return number

    def placed(self, number: int) -> None:
        """The trial has a process."""
        with self._lock:
            self._unplaced.pop(number, None)

    def lost(self, number: int) -> None:
        """The trial has lost its process, and needs a place again."""
        with self._lock:
            self._unplaced[number] = self._clock()

    def began(self, number: int) -> None:
        """The trial's processes run."""
        with self._lock:
            if started := self._starting.pop(number, None):
                is_new, since = started
                self._took[is_new].append(self._clock() - since)

    def trained(self, expert: str) -> None:
        """Whoever waited for this expert need not wait any longer."""
        with self._lock:
            self._waiting.made(expert)

    def ended(self, number: int) -> None:
        """The trial holds nothing any more; what it has not made, another one may make."""
        with self._lock:
            self._running.discard(number)
            self._held -= Counter([self._requests[number]])
            self._starting.pop(number, None)
            self._unplaced.pop(number, None)
            self._idle_since = self._clock()
            self._waiting.ended(number)

    def unplaced(self, seconds: float) -> list[Request]:
        """What trials ask for that were to start so long ago; or all that wait, if nothing has run for as long."""
        with self._lock:
            before = self._clock() - seconds
            if not self._running and self._idle_since <= before:
                return [self._requests[number] for number in self._left]
            return [self._requests[number] for number, since in self._unplaced.items() if since <= before]

    def start_ups(self) -> tuple[float | None, float | None]:
        """Mean seconds from a trial's start until it is at work: in new processes, and in those that are used again."""
        with self._lock:
            first, later = (fmean(took) if took else None for took in (self._took[True], self._took[False]))
            return first, later

    def _fits(
        self, nodes: Sequence[Node], request: Request, before: Sequence[Request], kept: Mapping[Request, int]
    ) -> bool:
        if self._limit is not None:  # a cluster that grows hears of what does not fit yet
            return len(self._running) + sum(kept.values()) < self._limit
        return fit(nodes, self._held + Counter(kept) + Counter([request])) and all(
            self._leaves_room(nodes, request, other) for other in before if not request.covers(other)
        )

    def _leaves_room(self, nodes: Sequence[Node], request: Request, first: Request) -> bool:
        """Whether one of a kind that came first has a place beside all that are smaller, this one among them.

        Those of its size end, and leave their place to it. What the nodes never hold, nobody waits for.
        """
        smaller = Counter({held: count for held, count in self._held.items() if not held.covers(first)})
        return fit(nodes, smaller + Counter([request, first])) or not fit(nodes, {first: 1})

    def _stuck(self, nodes: Sequence[Node]) -> list[Request]:
        """Kinds of trials that were started and find no place: what is free is in pieces that are too small.

        Nothing smaller starts until they run, as long as something smaller runs that can make place.
        """
        since = self._clock() - PATIENCE_SECONDS
        late = {self._requests[number] for number, (_, began) in self._starting.items() if began < since}
        at_work = {self._requests[number] for number in self._running if number not in self._starting}
        return [kind for kind in late if fit(nodes, {kind: 1}) and any(not other.covers(kind) for other in at_work)]

    def _places(self, nodes: Sequence[Node], request: Request) -> int:
        return self._limit or at_once(nodes, {request: len(self._requests)})
