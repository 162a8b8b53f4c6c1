"""KA, ZS, GM; mean and deviation over seeds; the Pareto front."""

import math
import statistics as reference

import pytest
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.metrics import Scores, scores
from time_ray.core.statistics import deviation, mean, pareto_front

PERCENT = st.floats(0, 100)


def test_geometric_mean_of_the_two_sides() -> None:
    found = scores({"a": 10.0, "b": 30.0, "c": 45.0, "unused": 99.0}, ["a", "b"], ["c"])
    assert found == Scores(20.0, 45.0, 30.0)


def test_the_benchmark_anchor() -> None:
    """Zero-shot ViT-B/32: KA 38.47, ZS 67.93, GM 51.12."""
    gm = scores({"a": 38.47, "z": 67.93}, ["a"], ["z"]).gm
    assert gm == pytest.approx(51.12, abs=0.005)


@given(st.lists(PERCENT, min_size=41, max_size=41), st.lists(PERCENT, min_size=22, max_size=22))
def test_the_benchmarks_weights_are_those_of_a_plain_mean(adaptation: list[float], held_out: list[float]) -> None:
    """It weighs mean accuracies and R@5 by how many datasets they stand for: (40 a + 1 r) / 41, (20 a + 2 r) / 22."""
    ka = (40 * reference.fmean(adaptation[:40]) + 1 * adaptation[40]) / 41
    zs = (20 * reference.fmean(held_out[:20]) + 2 * reference.fmean(held_out[20:])) / 22
    learned = {f"a{i}": value for i, value in enumerate(adaptation)}
    kept = {f"z{i}": value for i, value in enumerate(held_out)}
    further = {"a40/r1": 0.0, "z21/r1": 0.0}
    found = scores(learned | kept | further, learned, kept)
    assert found == pytest.approx((ka, zs, math.sqrt(ka * zs)))


def test_a_side_without_datasets_has_no_score() -> None:
    assert scores({"a": 50.0}, ["a"], []) == Scores(50.0, None, None)


@given(st.lists(PERCENT, min_size=2, max_size=20))
def test_mean_and_deviation_are_those_of_the_standard_library(values: list[float]) -> None:
    assert mean(values) == pytest.approx(reference.fmean(values))
    found = deviation(values)
    assert found is not None
    assert found == pytest.approx(reference.stdev(values), abs=1e-9)


def test_one_seed_has_no_deviation() -> None:
    assert deviation([3.0]) is None


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


def test_gm_is_zero_where_a_side_is() -> None:
    assert scores({"a": 0.0, "z": 80.0}, ["a"], ["z"]).gm == 0
    assert not math.isnan(scores({"a": 0.0, "z": 0.0}, ["a"], ["z"]).gm or 0)
