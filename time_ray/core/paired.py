"""Two cells compared on what they share: the same seeds, or the same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from time_ray.core.statistics import t_quantile
from time_ray.core.tied_best import NO_PRIOR, Prior, moderated


@dataclass(frozen=True)
class PairedInterval:
    """A mean difference and its confidence interval."""

    mean: float
    low: float
    high: float
    df: float  # degrees of freedom of Student's t


def paired_interval(
    differences: NDArray[np.float64], *, level: float = 0.95, prior: Prior = NO_PRIOR
) -> PairedInterval:
    """The mean of differences by seed [seeds], between ends that hold the truth with probability `level`.

    With a prior its variance is moderated, as in the tied-best set. Raises ValueError with one seed.
    """
    seeds = len(differences)
    if seeds < 2:
        raise ValueError("one seed has no variance: its difference has no interval")
    variance, df = moderated(differences.var(ddof=1, keepdims=True), seeds - 1, prior)
    mean = float(differences.mean())
    reach = t_quantile((1 + level) / 2, df) * float(variance[0] / seeds) ** 0.5
    return PairedInterval(mean, mean - reach, mean + reach, df)


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p of McNemar's exact test: that a and b are as often right on images that one of them gets right.

    Args:
        only_a: images that a gets right and b does not.
        only_b: the other way round.

    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
