"""Weights and folds share one limit in bytes; the least recently used goes first, and a base last of all."""

from operator import attrgetter

import pytest
import torch

from time_ray import merging
from time_ray.weight_cache import Cache, Memory, Weights, num_bytes


def model(number: float = 0.0) -> Weights:
    return {"w": torch.full((10, 10), number)}


SIZE = num_bytes(model())


def held(memory: Memory) -> int:
    """Bytes that all caches of the memory hold, counted anew."""
    return sum(size for _, size in memory._held.values())


def test_the_least_recently_used_goes_first() -> None:
    cache = Cache[Weights](Memory(3 * SIZE), num_bytes)
    for name in "abc":
        cache.put(name, model())
    assert cache.get("a") is not None
    cache.put("d", model())
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_the_newest_is_held_whatever_its_size() -> None:
    memory = Memory(0)
    cache = Cache[Weights](memory, num_bytes)
    cache.put("a", model())
    cache.put("b", model())
    assert (cache.get("a"), held(memory)) == (None, SIZE)
    assert cache.get("b") is not None


def test_what_is_put_again_takes_the_place_of_the_former() -> None:
    memory = Memory(10 * SIZE)
    cache = Cache[Weights](memory, num_bytes)
    cache.put("a", model())
    cache.put("a", {**model(), "v": torch.zeros(10, 10)})
    assert held(memory) == memory._bytes == 2 * SIZE


def test_a_base_outlasts_all_else_that_shares_its_memory() -> None:
    memory = Memory(2 * SIZE)
    bases, cache = Cache[Weights](memory, num_bytes, lasting=True), Cache[Weights](memory, num_bytes)
    bases.put("base", model())
    for name in "abc":
        cache.put(name, model())
    assert bases.get("base") is not None
    assert [name for name in "abc" if cache.get(name)] == ["c"]
    bases.put("another", model())
    bases.put("a third", model())
    assert bases.get("base") is None  # of two that do not fit the older goes
    bases.keep_only({"a third"})
    assert (bases.get("another"), held(memory)) == (None, SIZE)


@pytest.mark.parametrize(
    ("technique", "models"), [("average", 1), ("ties", 4), ("dare_ties", 4), ("breadcrumbs_ties", 4), ("consensus", 3)]
)
def test_a_fold_counts_as_the_models_that_its_state_takes(technique: str, models: int) -> None:
    memory = Memory(100 * SIZE)
    folds = Cache[merging.Fold](memory, attrgetter("num_bytes"))
    fold = merging.fold(technique, model())
    for number in range(3):
        fold.add(model(float(number)), id=str(number))
        folds.put("fold", fold)
    assert held(memory) == memory._bytes == models * SIZE
    assert folds.take("fold") is fold
    assert memory._bytes == 0
