"""Weights in memory: the most recently used ones, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

Weights: TypeAlias = Mapping[str, Tensor]


class WeightCache:
    """The most recently used weights, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[str, Weights] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> Weights | None:
        """The weights, if they are still held."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: str, weights: Weights) -> None:
        """The weights are held until newer ones need the memory; at least the newest are always held."""
        if key not in self._held:
            self._held[key] = weights
            self._bytes += num_bytes(weights)
        while self._bytes > self.limit and len(self._held) > 1:
            _, old = self._held.popitem(last=False)
            self._bytes -= num_bytes(old)


def num_bytes(weights: Weights) -> int:
    """Memory that the tensors take."""
    return sum(tensor.nbytes for tensor in weights.values())
