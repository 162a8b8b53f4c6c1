"""The interval of a gain: paired by image, and as wide as images allow."""

import numpy as np
import pytest
from toy_grid import setting

from time_ray.analysis.resampling import Right, difference_interval
from time_ray.core.outcomes import Question

IMAGES = 400


def right(*shares: float) -> Right:
    """Two models that have so many of the images right, the first ones."""
    bits = np.array([np.arange(IMAGES) < share * IMAGES for share in shares], dtype=np.float32)
    return {Question("toys"): bits, Question("held out"): bits}


def test_equal_models_differ_by_nothing() -> None:
    assert difference_interval([setting()], [right(0.5, 0.5)], "gm") == (0, 0)


def test_it_is_as_wide_as_images_allow() -> None:
    low, high = difference_interval([setting()], [right(0.75, 0.5)], "ka")
    reach = 196 * (0.25 * 0.75 / IMAGES) ** 0.5  # the difference is right where the first 1/2 to 3/4 of the images are
    assert (low, high) == (pytest.approx(25 - reach, abs=0.4), pytest.approx(25 + reach, abs=0.4))


def test_seeds_on_the_same_images_share_the_draw_and_are_averaged() -> None:
    seeds = [setting(seed=0), setting(seed=1)]
    one = difference_interval(seeds[:1], [right(0.75, 0.5)], "zs")
    assert difference_interval(seeds, [right(0.75, 0.5), right(0.75, 0.5)], "zs") == one
    low, high = difference_interval(seeds, [right(0.75, 0.5), right(0.5, 0.75)], "zs")
    assert (low, high) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
