"""The batch mixture, against the benchmark's own numbers."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from time_ray.core.mixture import Mixture

THIRDS = Mixture(pretraining=0.33, update=0.34, buffer=0.33)


def test_the_benchmark_batch() -> None:
    assert THIRDS.counts(512, first_task=False) == (169, 175, 168)
    assert THIRDS.counts(512, first_task=True) == (253, 259, 0)


def test_the_benchmark_multitask_batch() -> None:
    assert Mixture(pretraining=0.33, update=0.67).counts(512, first_task=True) == (169, 343, 0)


def test_without_replay_all_is_new() -> None:
    assert Mixture().counts(64, first_task=False) == (0, 64, 0)


def test_on_the_first_task_a_pure_buffer_becomes_new_data() -> None:
    assert Mixture(update=0, buffer=1).counts(64, first_task=True) == (0, 64, 0)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(2, 1024), st.booleans())
def test_a_batch_is_full_and_only_of_sources_in_use(a: int, b: int, batch_size: int, first: bool) -> None:
    assume(a + b <= 100)
    mixture = Mixture(pretraining=a / 100, update=b / 100, buffer=(100 - a - b) / 100)
    counts = mixture.counts(batch_size, first_task=first)
    assert sum(counts) == batch_size
    assert min(counts) >= 0
    assert not (first and counts.buffer)
    assert not (a == 0 and counts.pretraining)
    for amount, share in zip(counts, (a, b, 100 - a - b), strict=True):
        if not first:
            assert abs(amount - batch_size * share / 100) <= 2


@pytest.mark.parametrize("shares", [{"update": 0.5}, {"update": 1.0, "buffer": 0.1}, {"update": -0.5, "buffer": 1.5}])
def test_shares_must_be_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"shares sum to|greater than or equal to 0"):
        Mixture(**shares)


def test_a_bound_on_a_buffer_that_is_not_used_is_a_mistake() -> None:
    assert Mixture(update=0.5, buffer=0.5, buffer_size=500).buffer_size == 500
    with pytest.raises(ValueError, match="buffer_size changes nothing while buffer is 0"):
        Mixture(buffer_size=500)
