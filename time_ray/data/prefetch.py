"""What is prefetched: threads fill in the coming batches while the one before them is in use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

AHEAD = 2  # batches under way besides the one in use

T = TypeVar("T")


class PendingBatch(NamedTuple, Generic[T]):
    """A batch, and the calls that fill it in: in any order, on any thread."""

    batch: T
    parts: Sequence[Callable[[], None]]


def prefetched(prepare: Callable[[int], PendingBatch[T]], steps: Iterable[int], loaders: int) -> Iterator[T]:
    """The batch of each step, in order, each one whole.

    With loaders, that many threads work ahead; without, a batch is made when it is asked for. What a part raises is
    raised where its batch would have come.
    """
    if loaders:
        yield from _prefetched_ahead(prepare, steps, loaders)
        return
    for step in steps:
        batch, parts = prepare(step)
        for part in parts:
            part()
        yield batch


@contextmanager
def closed(batches: Iterable[T]) -> Iterator[Iterable[T]]:
    """Whatever makes batches ahead has stopped afterwards."""
    try:
        yield batches
    finally:
        if isinstance(batches, Generator):
            batches.close()


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by another thread while the one before it is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _prefetched_ahead(prepare: Callable[[int], PendingBatch[T]], steps: Iterable[int], loaders: int) -> Iterator[T]:
    pool = ThreadPoolExecutor(loaders, thread_name_prefix="loader")
    try:
        under_way: deque[tuple[T, list[Future[None]]]] = deque()
        for step in steps:
            under_way.append(_submitted(prepare(step), pool))
            if len(under_way) > AHEAD:
                yield _completed(*under_way.popleft())
        while under_way:
            yield _completed(*under_way.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pending: PendingBatch[T], pool: Executor) -> tuple[T, list[Future[None]]]:
    return pending.batch, [pool.submit(part) for part in pending.parts]


def _completed(batch: T, parts: Iterable[Future[None]]) -> T:
    for part in parts:
        part.result()
    return batch
