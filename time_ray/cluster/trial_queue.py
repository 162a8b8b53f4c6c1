"""Which trial starts next: the longest of those that need not wait for what another trial is making.

Trials of several sizes share the nodes. A small one may use the room that a larger one before it cannot use yet, but
never so that the larger one would have to wait for it: small trials together leave room for one of the larger kind.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from time_ray.cluster.room import Node, Request, fit
from time_ray.trials import Trial

STARTS_AT_ONCE = 32  # trials whose processes are being started: hundreds at once would slow each other down
PATIENCE_SECONDS = 60.0  # a trial that was started and does not run by then has found no node with enough room


class TrialQueue:
    """Trials that wait, start and end. A trial that would have to wait for another holds no resources meanwhile.

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
        self._trials = trials
        self._requests = requests
        self._limit = limit
        self._clock = clock
        self._waiting = dict.fromkeys(range(len(trials)))  # a set that keeps its order
        self._place = [0] * len(trials)  # in its chain: what lies before it is made
        self._running: set[int] = set()
        self._held: Counter[Request] = Counter()  # by running trials
        self._starting: dict[int, float] = {}  # since when
        self._made: set[str] = set()  # experts, since this began
        self._making: Counter[str] = Counter()  # experts, by how many running trials have them before them
        self._lock = threading.Lock()

    def next(self, nodes: Sequence[Node]) -> int | None:
        """The number of the trial that starts now on these nodes; None: none does."""
        with self._lock:
            if len(self._starting) >= STARTS_AT_ONCE or len(self._running) >= (self._limit or len(self._trials)):
                return None
            stuck = self._stuck(nodes)
            before: list[Request] = []  # kinds that do not fit now
            for number in self._waiting:
                request = self._requests[number]
                if request not in before and self._ready(number):
                    may = all(request.covers(other) for other in stuck)
                    if may and (self._limit is not None or self._fits(nodes, request, before)):
                        self._start(number)
                        return number
                    before.append(request)
            return None

    def began(self, number: int) -> None:
        """The trial's processes run."""
        with self._lock:
            self._starting.pop(number, None)

    def trained(self, expert: str) -> None:
        """Whoever waited for this expert need not wait any longer."""
        with self._lock:
            self._made.add(expert)

    def ended(self, number: int) -> None:
        """The trial holds nothing any more; what it has not made, another one may make."""
        with self._lock:
            self._running.discard(number)
            self._held -= Counter([self._requests[number]])
            self._starting.pop(number, None)
            self._making -= Counter(self._trials[number].chain)

    def _ready(self, number: int) -> bool:
        """Whether the first thing the trial has to make is not being made by another."""
        chain = self._trials[number].chain
        while self._place[number] < len(chain) and chain[self._place[number]] in self._made:
            self._place[number] += 1
        return self._place[number] == len(chain) or chain[self._place[number]] not in self._making

    def _fits(self, nodes: Sequence[Node], request: Request, before: Sequence[Request]) -> bool:
        if not fit(nodes, self._held + Counter([request])):
            return False
        return all(self._leaves_room(nodes, request, other) for other in before if not request.covers(other))

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
        late = {self._requests[number] for number, began in self._starting.items() if began < since}
        at_work = {self._requests[number] for number in self._running if number not in self._starting}
        return [kind for kind in late if fit(nodes, {kind: 1}) and any(not other.covers(kind) for other in at_work)]

    def _start(self, number: int) -> None:
        del self._waiting[number]
        self._running.add(number)
        self._held[self._requests[number]] += 1
        self._starting[number] = self._clock()
        self._making.update(self._trials[number].chain)
