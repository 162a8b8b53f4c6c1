"""Merging as experts arrive: each merge goes on from the one before it, so a trajectory of T tasks does T merges."""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from time_ray import merging
from time_ray.core.recipe import History, Merged, Recipe, Running, Trained

Weights = Mapping[str, Tensor]


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
        """The weights are held until newer ones need the room; at least the newest are always held."""
        if key not in self._held:
            self._held[key] = weights
            self._bytes += num_bytes(weights)
        while self._bytes > self.limit and len(self._held) > 1:
            _, old = self._held.popitem(last=False)
            self._bytes -= num_bytes(old)


def num_bytes(weights: Weights) -> int:
    """Memory that the tensors take."""
    return sum(tensor.nbytes for tensor in weights.values())


class _Fold(NamedTuple):
    technique: str
    experts: History
    fold: Any


class Merges:
    """Makes merges from recipes, keeping the folds and running merges that the next task will continue."""

    def __init__(self, realize: Callable[[Recipe], Weights], cache: WeightCache, num_folds: int = 16) -> None:
        self._realize = realize
        self._cache = cache
        self._folds: deque[_Fold] = deque(maxlen=num_folds)  # the longest unused falls out

    def __call__(self, merge: Merged | Running) -> Weights:
        """The merged weights."""
        weights = self._cache.get(merge.key)
        if weights is None:
            weights = self._all(merge) if isinstance(merge, Merged) else self._running(merge)
            self._cache.put(merge.key, weights)
        return weights

    def _running(self, merge: Running) -> Weights:
        older = merge.older.key if isinstance(merge.older, Trained) else None  # None: a merge, never masked again
        params: dict[str, Any] = dict(merge.technique.pair_params)
        return merging.pair(
            self._realize(merge.base),
            self._realize(merge.older),
            self._realize(merge.newer),
            merge.technique.name,
            weight=0.5 if merge.weight is None else merge.weight,
            ids=(older, merge.newer.key),
            **params,
        )

    def _all(self, merge: Merged) -> Weights:
        """Add to a fold whatever it has not seen yet; begin a new one if none went this way."""
        fold, missing = self._continued(merge) or self._begun(merge)
        for expert in missing:
            fold.add(self._realize(expert), id=expert.key)
        self._folds.append(_Fold(merge.technique.key, merge.experts, fold))
        result: Weights = fold.result()
        return result

    def _continued(self, merge: Merged) -> tuple[Any, list[Trained]] | None:
        for held in self._folds:
            missing = _since(merge.experts, held.experts)
            if held.technique == merge.technique.key and missing is not None:
                self._folds.remove(held)
                return held.fold, missing
        return None

    def _begun(self, merge: Merged) -> tuple[Any, list[Trained]]:
        params: dict[str, Any] = dict(merge.technique.params)
        fold = merging.fold(merge.technique.name, self._realize(merge.base), **params)
        return fold, list(merge.experts)


def _since(experts: History, seen: History) -> list[Trained] | None:
    """The experts that came after those seen, oldest first; None if what was seen is no part of this history."""
    newer = []
    link: History | None = experts
    while link is not None and link.length > seen.length:
        newer.append(link.newest)
        link = link.previous
    return newer[::-1] if link is not None and link.key == seen.key else None
