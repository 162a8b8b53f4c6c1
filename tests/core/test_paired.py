"""Two cells compared: intervals over seeds, and McNemar's test on images."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from scipy import stats

from time_ray.core.paired import mcnemar, paired_interval
from time_ray.core.tied_best import Prior


@given(st.integers(2, 8), st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_is_that_of_the_paired_t_test(seeds: int, number: int, level: float) -> None:
    a, b = default_rng(number).normal(50, 2, (2, seeds))
    found = paired_interval(a - b, level=level)
    expected = stats.ttest_rel(a, b).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.df == seeds - 1


def test_a_known_variance_gives_the_normal_interval() -> None:
    found = paired_interval(np.array([1.0, 1.2]), prior=Prior(math.inf, 2.0))
    assert (found.low, found.high) == pytest.approx((1.1 - 1.959964, 1.1 + 1.959964))
    assert found.df == math.inf


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_hold_the_truth_where_the_prior_is_true(seeds: int) -> None:
    generator = default_rng(seeds)
    prior = Prior(4.0, 1.5)
    held, lengths = 0, []
    for _ in range(2000):
        deviation = math.sqrt(prior.df * prior.variance / generator.chisquare(prior.df))
        differences = generator.normal(1.0, deviation, seeds)
        found, alone = paired_interval(differences, prior=prior), paired_interval(differences)
        held += found.low <= 1 <= found.high
        lengths.append([found.high - found.low, alone.high - alone.low])
    assert held / 2000 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)
    moderated, alone = np.mean(lengths, axis=0)
    assert moderated < alone


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(ValueError, match="one seed"):
        paired_interval(np.array([1.0]))


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    both = only_a + only_b
    expected = stats.binomtest(only_a, both).pvalue if both else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)
