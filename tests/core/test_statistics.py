"""Mean and deviation over seeds; the Pareto front."""

import math
import statistics as reference

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from time_ray.core.statistics import deviation, mean, pareto_front, t_quantile

PERCENT = st.floats(0, 100)


@given(st.lists(PERCENT, min_size=2, max_size=20))
def test_mean_and_deviation_are_those_of_the_standard_library(values: list[float]) -> None:
    assert mean(values) == pytest.approx(reference.fmean(values))
    found = deviation(values)
    assert found is not None
    assert found == pytest.approx(reference.stdev(values), abs=1e-9)


def test_one_seed_has_no_deviation() -> None:
    assert deviation([3.0]) is None


@pytest.mark.parametrize("df", [1.0, 3.5, 40.0, math.inf])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.999])
def test_quantiles_are_those_of_scipys_distributions(probability: float, df: float) -> None:
    expected = stats.norm.ppf(probability) if math.isinf(df) else stats.t.ppf(probability, df)
    assert t_quantile(probability, df) == pytest.approx(expected, abs=1e-12)


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    front = {points[i] for i in pareto_front(points)}
    for point in points:
        beaten = any(q[0] >= point[0] and q[1] >= point[1] and q != point for q in points)
        assert (point in front) != beaten
    assert max(points) in front


def test_equal_points_stand_on_the_front_together() -> None:
    assert pareto_front([(1, 1), (2, 0), (1, 1), (0, 0)]) == (0, 1, 2)
