"""Processes that share out work on files. None of them outlives the process that started them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from time_ray.core.errors import StoreError
from time_ray.python_child import safe_spawning

ALONE_SECONDS = 2.0  # about what it takes to start a process

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> Iterator[tuple[int, Result]]:
    """Number and result of each job as soon as it is done. Others help once this process has shown that it takes long.

    Raises StoreError if a process was killed, and what a job raises; what has not begun by then never begins.
    """
    start, number = time.monotonic(), 0
    while number < len(jobs) and (
        processes == 1 or len(jobs) - number == 1 or time.monotonic() - start < ALONE_SECONDS
    ):
        yield number, work(jobs[number])
        number += 1
    if number == len(jobs):
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, but not the threads
    count = min(processes, len(jobs) - number)
    with safe_spawning(), ProcessPoolExecutor(count, context, _end_with_parent) as pool:
        futures = {pool.submit(work, jobs[later]): later for later in range(number, len(jobs))}
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            msg = "a worker process was killed, perhaps for lack of memory; run it again with fewer --jobs"
            raise StoreError(msg) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """The worker leaves interrupts to its parent, and ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
