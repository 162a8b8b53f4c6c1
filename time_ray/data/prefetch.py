"""Batches made ahead of the training: threads fill in the coming ones while a step computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

AHEAD = 2  # batches under way besides the one in use

T = TypeVar("T")


class Draft(NamedTuple, Generic[T]):
    """A batch, and the calls that fill it in: in any order, on any thread."""

    batch: T
    parts: Sequence[Callable[[], None]]


def made(draft: Callable[[int], Draft[T]], steps: Iterable[int], loaders: int) -> Iterator[T]:
    """The batch of each step, in order, each one whole.

    With loaders, that many threads work ahead; without, a batch is made when it is asked for. What a part raises is
    raised where its batch would have come.
    """
    if loaders:
        yield from _made_ahead(draft, steps, loaders)
        return
    for step in steps:
        batch, parts = draft(step)
        for part in parts:
            part()
        yield batch


def _made_ahead(draft: Callable[[int], Draft[T]], steps: Iterable[int], loaders: int) -> Iterator[T]:
    pool = ThreadPoolExecutor(loaders, thread_name_prefix="loader")
    try:
        under_way: deque[tuple[T, list[Future[None]]]] = deque()
        for step in steps:
            under_way.append(_begun(draft(step), pool))
            if len(under_way) > AHEAD:
                yield _whole(*under_way.popleft())
        while under_way:
            yield _whole(*under_way.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _begun(draft: Draft[T], pool: Executor) -> tuple[T, list[Future[None]]]:
    return draft.batch, [pool.submit(part) for part in draft.parts]


def _whole(batch: T, parts: Iterable[Future[None]]) -> T:
    for part in parts:
        part.result()
    return batch
