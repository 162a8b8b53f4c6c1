"""The functional ANOVA of complete grids: planted effects are found exactly, and shares sum to 1."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from numpy.typing import NDArray

from time_ray.core.importance import Importance, importance

Values = NDArray[np.float64]
NAMES = ("init", "deploy", "technique", "model", "budget")


def found_in(response: Values) -> Importance:
    return importance(response, NAMES[: response.ndim - 1])


def shares(response: Values) -> dict[tuple[str, ...], float]:
    return {share.axes: share.value for share in found_in(response).shares}


@st.composite
def grids(draw: st.DrawFn) -> Values:
    levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    seeds = draw(st.integers(1, 4))
    generator = default_rng(draw(st.integers(0, 10**6)))
    return generator.normal(50, 3, (*levels, seeds))


@settings(max_examples=50)
@given(grids())
def test_shares_sum_to_one(response: Values) -> None:
    found = found_in(response)
    cells = response.mean(axis=-1)
    assert found.variance == pytest.approx(cells.var())
    assert sum(share.value for share in found.shares) == pytest.approx(1 if cells.size > 1 else 0)
    axes = NAMES[: response.ndim - 1]
    of_order = [effect for order in (1, 2, 3) for effect in combinations(axes, order)]
    assert [share.axes for share in found.shares] == of_order + [()] * (len(axes) > 3)
    for share in found.shares:
        assert share.value >= 0
        assert (share.interval is None) == (response.shape[-1] == 1)


def planted(levels: tuple[int, ...], effect: tuple[int, ...], number: int) -> Values:
    """A response whose mean along each axis of the effect is 0, and which is constant along all others."""
    part = default_rng(number).normal(size=[size if axis in effect else 1 for axis, size in enumerate(levels)])
    for axis in effect:
        part = part - part.mean(axis=axis, keepdims=True)
    return np.broadcast_to(part, levels).copy()


@settings(max_examples=50)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=5).map(tuple), st.integers(0, 10**6), st.data())
def test_planted_effects_are_found_exactly(levels: tuple[int, ...], number: int, data: st.DataObject) -> None:
    every = [effect for order in range(1, len(levels) + 1) for effect in combinations(range(len(levels)), order)]
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=6, unique=True))
    parts = {effect: planted(levels, effect, number + place) for place, effect in enumerate(chosen)}
    seeds = np.array([40.0, 50.0, 63.0])
    found = shares(sum(parts.values())[..., None] + seeds)  # type: ignore[index]
    total = sum((part**2).sum() for part in parts.values())
    expected = dict.fromkeys(found, 0.0)
    for effect, part in parts.items():
        expected[tuple(NAMES[axis] for axis in effect) if len(effect) < 4 else ()] += (part**2).sum() / total
    assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(grids(), st.floats(0.1, 50), st.integers(0, 10**6))
def test_units_seeds_in_common_and_order_do_not_matter(response: Values, scale: float, number: int) -> None:
    generator = default_rng(number)
    moved = scale * (response + generator.normal(0, 5, response.shape[-1]))
    for axis, size in enumerate(response.shape):
        moved = moved.take(generator.permutation(size), axis=axis)
    assert shares(moved) == pytest.approx(shares(response), abs=1e-9)


def test_equal_cells_have_no_shares() -> None:
    found = found_in(np.broadcast_to([47.1, 48.3, 49.7], (4, 3, 8, 3)).copy())
    assert {share.value for share in found.shares} == {0.0}
    assert {share.interval for share in found.shares} == {(0.0, 0.0)}
    assert found.headline.value is None
    assert found.variance == 0


def test_the_headline_sums_strategies_over_all_that_the_technique_is_in() -> None:
    response = default_rng(1).normal(50, 3, (4, 3, 5, 2, 2, 3))
    found = found_in(response)
    share = {share.axes: share.value for share in found.shares}
    strategies = share["init",] + share["deploy",] + share["init", "deploy"]
    without = sum(value for axes, value in share.items() if axes and "technique" not in axes)
    fourth = found_in(response.mean(axis=2))  # of the rest, what has no technique: the other four axes together
    four = [one.value * fourth.variance / found.variance for one in fourth.shares]
    technique = 1 - without - (sum(four) - without)
    assert found.headline.value == pytest.approx(strategies / technique)
    assert found.headline.interval is not None
    low, high = found.headline.interval
    assert low < high


def test_without_techniques_to_choose_from_there_is_no_headline() -> None:
    response = default_rng(1).normal(50, 3, (4, 3, 1, 3))
    assert found_in(response).headline.value is None
    assert importance(response[:, :, 0], NAMES[:2]).headline.value is None


def test_what_seeds_have_in_common_widens_no_interval() -> None:
    seeds = np.array([30.0, 60.0, 45.0])
    for share in found_in(planted((4, 3, 5), (0, 2), 1)[..., None] + seeds).shares:
        assert share.interval == pytest.approx((share.value, share.value), abs=1e-12)


def test_the_headlines_interval_may_be_open() -> None:
    response = planted((4, 3, 5), (0,), 1)[..., None] + 0.01 * default_rng(2).normal(size=(4, 3, 5, 2))
    headline = found_in(response).headline
    assert headline.value is not None
    assert headline.value > 100
    assert headline.interval is not None
    assert headline.interval[1] == math.inf


def held(seeds: int, times: int) -> Values:
    """How often the interval of each share, and that of the headline, holds the truth; noise differs by init."""
    generator = default_rng(seeds)
    sizes = {(0,): 4.0, (1,): 2.0, (2,): 2.0, (0, 1): 1.0, (0, 1, 2): 0.5}
    truth = sum(size * planted((4, 3, 6), effect, number) for number, (effect, size) in enumerate(sizes.items()))
    noise = np.array([0.5, 1.0, 1.5, 2.0])[:, None, None, None]
    expected = found_in(np.asarray(truth)[..., None])
    holds = []
    for _ in range(times):
        found = found_in(np.asarray(truth)[..., None] + noise * generator.normal(size=(4, 3, 6, seeds)))
        pairs = zip((*found.shares, found.headline), (*expected.shares, expected.headline), strict=True)
        holds.append([one.interval[0] <= true.value + 1e-12 and true.value <= one.interval[1] for one, true in pairs])
    return np.mean(holds, axis=0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_intervals_hold_the_truth(seeds: int) -> None:
    found = held(seeds, 200)
    assert found.mean() > 0.92
    assert found.min() > 0.85


@pytest.mark.nightly
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_intervals_hold_the_truth_of_many_sweeps(seeds: int) -> None:
    found = held(seeds, 5000)
    assert found.mean() > 0.94
    assert found.min() > 0.9
