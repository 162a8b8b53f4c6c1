"""How likely each cell is the best, by the paired bootstrap."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from time_ray.core.bootstrap import probability_best

Values = NDArray[np.float64]


def by_seeds(values: Values, resamples: int = 400) -> Values:
    return probability_best(lambda _: values, default_rng(0), resamples=resamples)


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_probabilities_sum_to_one_in_any_order(cells: int, seeds: int, number: int) -> None:
    generator = default_rng(number)
    values = generator.integers(0, 4, (cells, seeds)).astype(np.float64)
    found = by_seeds(values, 50)
    assert found.shape == (cells,)
    assert found.sum() == pytest.approx(1)
    order = generator.permutation(cells)
    assert by_seeds(values[order], 50).tolist() == pytest.approx(found[order].tolist())
    assert by_seeds(values + generator.integers(0, 9, seeds), 50).tolist() == pytest.approx(found.tolist())


def test_seeds_are_drawn_as_in_all_draws_written_out() -> None:
    values = default_rng(3).normal(size=(5, 4))
    expected = np.zeros(5)
    for seeds in product(range(4), repeat=4):
        expected[values[:, list(seeds)].mean(axis=1).argmax()] += 1 / 4**4
    assert by_seeds(values, 4000) == pytest.approx(expected, abs=3 * 0.5 / 4000**0.5)
    assert 0 < expected.max() < 1


def test_equal_cells_share_and_beaten_ones_have_nothing() -> None:
    values = np.array([[50.1, 47.3, 49.7], [50.1, 47.3, 49.7], [50.0, 47.2, 49.6]])
    assert by_seeds(values).tolist() == [0.5, 0.5, 0.0]


def test_one_seed_is_as_certain_as_its_images() -> None:
    right = np.zeros((2, 1, 100))
    right[0, 0, :55] = 1  # 55 images only the first gets right, 45 only the second
    right[1, 0, 55:] = 1

    def resampled(generator: Generator) -> Values:
        drawn: Values = right[:, :, generator.integers(100, size=100)].mean(axis=2)
        return drawn

    first, second = probability_best(resampled, default_rng(0), resamples=2000)
    assert first == pytest.approx(0.841, abs=0.03)  # of a normal variable of mean 0.1 and deviation 0.0995
    assert first + second == pytest.approx(1)
    assert by_seeds(right.mean(axis=2)).tolist() == [1.0, 0.0]  # without images, certain of what it cannot know
