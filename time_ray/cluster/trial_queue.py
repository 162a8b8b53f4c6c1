"""Which trial starts next: the longest of those that need not wait for what another trial is making."""

import threading
from collections import Counter
from collections.abc import Sequence

from time_ray.cluster.room import Node, Request, fit
from time_ray.trials import Trial

STARTS_AT_ONCE = 32  # trials whose processes are being started: hundreds at once would slow each other down


class TrialQueue:
    """Trials that wait, start and end. A trial that would have to wait for another holds no resources meanwhile.

    Args:
        trials: In the order in which they are to start.
        requests: What each of them holds while it runs.
        limit: Trials at once; None: as many as fit.

    """

    def __init__(self, trials: Sequence[Trial], requests: Sequence[Request], limit: int | None = None) -> None:
        self._trials = trials
        self._requests = requests
        self._limit = limit
        self._waiting = dict.fromkeys(range(len(trials)))  # a set that keeps its order
        self._place = [0] * len(trials)  # in its chain: what lies before it is made
        self._running: set[int] = set()
        self._held: Counter[Request] = Counter()  # by running trials
        self._starting: set[int] = set()
        self._made: set[str] = set()  # experts, since this began
        self._making: Counter[str] = Counter()  # experts, by how many running trials have them before them
        self._lock = threading.Lock()

    def next(self, nodes: Sequence[Node]) -> int | None:
        """The number of the trial that starts now on these nodes; None: none does."""
        with self._lock:
            if len(self._starting) >= STARTS_AT_ONCE or len(self._running) >= (self._limit or len(self._trials)):
                return None
            full: set[Request] = set()
            for number in self._waiting:
                request = self._requests[number]
                if request not in full and self._ready(number):
                    if self._limit is not None or self._fits(nodes, request):
                        self._start(number)
                        return number
                    full.add(request)
            return None

    def began(self, number: int) -> None:
        """The trial's processes run."""
        with self._lock:
            self._starting.discard(number)

    def trained(self, expert: str) -> None:
        """Whoever waited for this expert need not wait any longer."""
        with self._lock:
            self._made.add(expert)

    def ended(self, number: int) -> None:
        """The trial holds nothing any more; what it has not made, another one may make."""
        with self._lock:
            self._running.discard(number)
            self._held -= Counter([self._requests[number]])
            self._starting.discard(number)
            self._making -= Counter(self._trials[number].chain)

    def _ready(self, number: int) -> bool:
        """Whether the first thing the trial has to make is not being made by another."""
        chain = self._trials[number].chain
        while self._place[number] < len(chain) and chain[self._place[number]] in self._made:
            self._place[number] += 1
        return self._place[number] == len(chain) or chain[self._place[number]] not in self._making

    def _fits(self, nodes: Sequence[Node], request: Request) -> bool:
        return fit(nodes, self._held + Counter([request]))

    def _start(self, number: int) -> None:
        del self._waiting[number]
        self._running.add(number)
        self._held[self._requests[number]] += 1
        self._starting.add(number)
        self._making.update(self._trials[number].chain)
