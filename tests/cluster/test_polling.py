"""What is polled while something else runs."""

import threading

import pytest

from time_ray.cluster.polling import polling


def test_it_is_polled_while_the_block_runs_and_once_more_after_it() -> None:
    polled = threading.Semaphore(0)
    with polling(polled.release, seconds=0.001):
        assert polled.acquire(timeout=10)
        assert polled.acquire(timeout=10)
    told: list[str] = []
    heard: list[str] = []
    with polling(lambda: heard.extend(told), seconds=60):
        told.append("at the very end")
    assert heard == told


def test_what_polling_raises_is_raised_after_the_block() -> None:
    done: list[str] = []
    with pytest.raises(ValueError, match="cannot be heard"), polling(fail, seconds=0.001):
        done.append("the block")
    assert done


def fail() -> None:
    raise ValueError("cannot be heard")


def test_what_the_block_raises_comes_first() -> None:
    with pytest.raises(KeyError), polling(fail, seconds=0.001):
        raise KeyError
