"""Which trial starts next: the first of those that have a place and need not wait for what another trial is making.

Sweeps ask here, and so do simulated ones.
"""

from bisect import bisect, insort
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from heapq import heappop, heappush
from operator import itemgetter
from typing import Generic, TypeVar

STARTS_AT_ONCE = 32  # trials whose processes are being started: hundreds at once would slow each other down
LONG = 0.5  # of what is left for each place: a trial that takes longer is not to be late

Size = TypeVar("Size", bound=Hashable)
Fits = Callable[[Size, Sequence[Size], Mapping[Size, int]], bool]


class WaitingTrials(Generic[Size]):
    """Trials that wait, start and end. A trial that would have to wait for another holds no resources meanwhile.

    Others may use them, unless that trial is long beside all that is left: then its end would be that of the sweep,
    and its place is kept. However many trials wait, a call takes about as long as what it changes.

    Args:
        chains: What each trial has yet to make, by key, in order; the first trials start first.
        sizes: What each of them holds while it runs.
        costs: What each of them takes, in any unit.

    """

    def __init__(self, chains: Sequence[Sequence[str]], sizes: Sequence[Size], costs: Sequence[float]) -> None:
        self._chains: list[Sequence[str]] = []
        self._sizes: list[Size] = []
        self._costs: list[float] = []
        self._ready: dict[Size, list[int]] = {}  # heaps of trials that wait for a place, or so it seems
        self._left: dict[Size, float] = {}  # costs of trials that wait
        self._aside: list[int] = []  # sorted trials that wait for others
        self._blocked: dict[str, list[int]] = {}  # the same, by what they need first
        self._place: list[int] = []  # in its chain: what lies before it is made
        self._made: set[str] = set()  # since this began
        self._making: Counter[str] = Counter()  # by how many running trials have it in their chains
        self._kept: dict[int, Counter[Size]] = {}  # see _kept_before; until something changes
        self.add(chains, sizes, costs)

    def add(self, chains: Sequence[Sequence[str]], sizes: Sequence[Size], costs: Sequence[float]) -> None:
        """These wait as well, behind those that do."""
        for chain, size, cost in zip(chains, sizes, costs, strict=True):
            heappush(self._ready.setdefault(size, []), len(self._chains))
            self._left[size] = self._left.get(size, 0.0) + cost
            self._chains.append(chain)
            self._sizes.append(size)
            self._costs.append(cost)
            self._place.append(0)
        self._kept.clear()

    def next(self, fits: Fits[Size], places: Callable[[Size], float]) -> int | None:
        """The number of the trial that starts now; None: none does.

        Args:
            fits: Whether there is a place for one of a size, given sizes before it that have none, and how many of each
                are kept. It is asked once for each size.
            places: How many of a size run at once if nothing else does.

        """
        heads = ((self._head(ready), size) for size, ready in self._ready.items())
        first = [(number, size) for number, size in heads if number is not None]
        before: list[Size] = []
        for number, size in sorted(first, key=itemgetter(0)):
            if fits(size, before, self._kept_before(number, places)):
                heappop(self._ready[size])
                self._making.update(self._chains[number])
                self._left[size] -= self._costs[number]
                self._kept.clear()
                return number
            before.append(size)
        return None

    def made(self, key: str) -> None:
        """Whoever waited for this need not wait any longer."""
        self._made.add(key)
        self._unblock(key)

    def ended(self, number: int) -> None:
        """The trial makes nothing any more; what it has not made, another one may make."""
        for key in self._chains[number]:
            self._making[key] -= 1
            if not self._making[key]:
                del self._making[key]
                self._unblock(key)

    def _head(self, ready: list[int]) -> int | None:
        """The first that need not wait for another; those before it are put aside."""
        while ready:
            missing = self._missing(ready[0])
            if missing is None or missing not in self._making:
                return ready[0]
            number = heappop(ready)
            self._blocked.setdefault(missing, []).append(number)
            insort(self._aside, number)
            self._kept.clear()
        return None

    def _missing(self, number: int) -> str | None:
        """The first thing that the trial has to make."""
        chain = self._chains[number]
        while self._place[number] < len(chain) and chain[self._place[number]] in self._made:
            self._place[number] += 1
        return chain[self._place[number]] if self._place[number] < len(chain) else None

    def _unblock(self, key: str) -> None:
        for number in self._blocked.pop(key, ()):
            heappush(self._ready[self._sizes[number]], number)
            self._aside.remove(number)
            self._kept.clear()

    def _kept_before(self, number: int, places: Callable[[Size], float]) -> Counter[Size]:
        """Places of long trials that wait for others and come before this one."""
        if number not in self._kept:
            left = sum(cost / (places(size) or 1) for size, cost in self._left.items())
            before = self._aside[: bisect(self._aside, number)]
            self._kept[number] = Counter(self._sizes[other] for other in before if self._costs[other] > LONG * left)
        return self._kept[number]
