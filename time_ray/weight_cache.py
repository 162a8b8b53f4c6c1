"""Weights and folds in memory: the most recently used ones, up to a number of bytes in all."""

from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from torch import Tensor

Weights: TypeAlias = Mapping[str, Tensor]

T = TypeVar("T")


class Memory:
    """What several caches hold together: up to a number of bytes, the least recently used of all is let go first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[tuple[Cache[Any], str], tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def find(self, place: "tuple[Cache[Any], str]") -> Any:
        """What is held there, which is in use now; None if nothing is."""
        if place not in self._held:
            return None
        self._held.move_to_end(place)
        return self._held[place][0]

    def hold(self, place: "tuple[Cache[Any], str]", value: Any, num_bytes: int) -> None:
        """It is held there until something newer needs the memory; at least the newest is always held."""
        self.drop(place)
        self._held[place] = value, num_bytes
        self._bytes += num_bytes
        while self._bytes > self.limit and len(self._held) > 1:
            self.drop(self._least_needed())

    def drop(self, place: "tuple[Cache[Any], str]") -> None:
        """Nothing is held there."""
        _, num_bytes = self._held.pop(place, (None, 0))
        self._bytes -= num_bytes

    def places(self, cache: "Cache[Any]") -> "list[tuple[Cache[Any], str]]":
        """Where the cache holds something."""
        return [place for place in self._held if place[0] is cache]

    def _least_needed(self) -> "tuple[Cache[Any], str]":
        oldest, *others = list(self._held)[:-1]
        return next((place for place in (oldest, *others) if not place[0].lasting), oldest)


class Cache(Generic[T]):
    """One kind of what a memory holds, by key.

    Args:
        memory: What it shares with other caches.
        num_bytes: Of what it holds.
        lasting: Everything else is let go first, whenever it was used.

    """

    def __init__(self, memory: Memory, num_bytes: Callable[[T], int], *, lasting: bool = False) -> None:
        self.lasting = lasting
        self._memory = memory
        self._num_bytes = num_bytes

    def get(self, key: str) -> T | None:
        """What is held under the key, if it still is."""
        found: T | None = self._memory.find((self, key))
        return found

    def put(self, key: str, value: T) -> None:
        """It is held until newer things need the memory."""
        self._memory.hold((self, key), value, self._num_bytes(value))

    def take(self, key: str) -> T | None:
        """What was held under the key, and is not any more."""
        found = self.get(key)
        self._memory.drop((self, key))
        return found

    def keep_only(self, keys: Container[str]) -> None:
        """Nothing is held under other keys."""
        for place in self._memory.places(self):
            if place[1] not in keys:
                self._memory.drop(place)


def num_bytes(weights: Weights) -> int:
    """Memory that the tensors take."""
    return sum(tensor.nbytes for tensor in weights.values())
