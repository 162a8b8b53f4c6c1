"""The paired bootstrap: how likely each cell is the best, if seeds and test images were drawn again."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Values = NDArray[np.float64]


def probability_best(
    resampled: Callable[[Generator], Values], generator: Generator, *, resamples: int = 2000
) -> Values:
    """How often each cell [cells] has the highest mean over resampled seeds; cells that tie share. They sum to 1.

    Args:
        resampled: gives values [cells, seeds] on images that it draws with this generator, the same for all cells of a
            seed; without images, the same values each time. Higher is better.
        generator: draws the seeds, too: whole columns, so that cells stay paired.
        resamples: how many. The standard error of a probability is at most 0.5 / sqrt(resamples).

    """
    wins: Values = np.zeros(())
    for _ in range(resamples):
        values = resampled(generator)
        means = values[:, generator.integers(values.shape[1], size=values.shape[1])].mean(axis=1)
        best = means == means.max()
        wins = wins + best / best.sum()
    return wins / resamples
