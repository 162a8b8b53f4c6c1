"""Batches made ahead: in order, whole, not too many, and nothing is left running."""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from time_ray.data.prefetch import AHEAD, PendingBatch, one_ahead, prefetched


def prepares(begun: list[int]) -> Callable[[int], PendingBatch[list[int]]]:
    def prepare(step: int) -> PendingBatch[list[int]]:
        begun.append(step)
        batch = [0] * 5
        return PendingBatch(batch, [partial(batch.__setitem__, place, 10 * step + place) for place in range(5)])

    return prepare


def loaders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_batches_come_in_order_and_whole(count: int):
    found = list(prefetched(prepares([]), range(3, 20), count))
    assert found == [[10 * step + place for place in range(5)] for step in range(3, 20)]
    assert not loaders()


@pytest.mark.parametrize(("count", "ahead"), [(0, 0), (2, AHEAD)])
def test_few_batches_are_under_way(count: int, ahead: int):
    begun: list[int] = []
    batches = prefetched(prepares(begun), range(20), count)
    for step in range(5):
        next(batches)
        assert begun == list(range(step + 1 + ahead))
    batches.close()
    assert not loaders()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_a_part_raises_comes_in_its_batch_s_place(count: int):
    def prepare(step: int) -> PendingBatch[list[int]]:
        batch = [step]
        return PendingBatch(batch, [partial(batch.remove, step if step != 2 else -1)])

    batches = prefetched(prepare, range(5), count)
    assert [next(batches), next(batches)] == [[], []]
    with pytest.raises(ValueError, match="not in list"):
        next(batches)
    assert not loaders()


def test_items_come_ahead_in_order_and_errors_come_through():
    def items(stop: int | None):
        for number in range(10):
            if number == stop:
                raise ValueError(number)
            yield number

    assert list(one_ahead(items(None))) == list(range(10))
    with pytest.raises(ValueError, match="4"):
        list(one_ahead(items(4)))
    first = one_ahead(items(None))
    assert next(first) == 0
    first.close()
