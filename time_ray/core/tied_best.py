"""The tied-best set: which cells the seeds cannot tell from the best, by multiple comparisons with the best.

Values are a complete matrix [cells, seeds], higher is better, and paired: a column is one seed, hence one stream.
D_bc is the mean over seeds of x_b - x_c, v_bc the sample variance of these differences.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from time_ray.core.statistics import t_quantile

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

_PAIRS_AT_A_TIME = 2**18  # 2 MiB for each array of a block: what caches hold
_SAME = 1e-12  # of both cells' own squares: what is left of a variance of 0 by rounding


@dataclass(frozen=True)
class Prior:
    """What is known of variances of paired differences before a pair's own is seen: as much as `df` more seeds tell.

    Variances are taken as `variance` · df / chi-squared(df): with 0 nothing is known, with infinity all are equal.
    """

    df: float
    variance: float
    pooled: float = math.inf  # degrees of freedom of all that it was fitted to: no moderated variance has more


NO_PRIOR = Prior(0.0, 0.0)


@dataclass(frozen=True, eq=False)
class TiedBest:
    """Every cell against the best of the others. All statements together hold with probability 1 - alpha."""

    in_set: Mask  # [cells], not told from the best
    lower: Values  # [cells], bounds of a cell's true value less that of the best of the others; at most 0
    upper: Values  # [cells], at least 0
    out_by: NDArray[np.intp]  # [cells], the cell that says clearest that this one is not the best; -1 within the set
    prior: Prior


def tied_best(values: Values, *, alpha: float = 0.05, prior: Prior | None = None) -> TiedBest:
    """The cells that may be the best, and simultaneous intervals.

    Cell c is out if D_bc > t(1 - alpha/(C - 1)) · sqrt(v~_bc / S) for some b, with moderated variances v~ and their
    degrees of freedom. Intervals are those of Edwards and Hsu (https://doi.org/10.1080/01621459.1983.10477047): the
    best is in the set, and the truth in all intervals, unless one of the C - 1 comparisons of the best itself fails.
    Cells of equal values are one model: they count once and get the same answer.

    With few seeds this trusts that the best is not much noisier than most. Simulated at alpha = 5 % with all cells
    tied, the hardest case: it is lost in 4 to 7 % of sweeps if it is of the noisiest quarter (deviations of 0.5 to 2.2
    points), and in 13, 10, 6, 2 % with 2, 3, 5, 10 seeds if it alone is four times as noisy as 31 others.

    Args:
        values: [cells, seeds], at least 2 seeds, higher is better.
        alpha: how often any of it may be wrong.
        prior: of variances, from earlier sweeps; fitted to these values if None.

    Raises:
        ValueError: with one seed, which has no variance.

    """
    models, first, model_of = _distinct(values)
    pairs = _Pairs(models, alpha, prior)
    nearest, beaten_by = pairs.least_upper()
    in_set = nearest >= 0
    lower = pairs.least_lower(np.flatnonzero(in_set))
    return TiedBest(
        in_set=in_set[model_of],
        lower=lower[model_of],
        upper=np.maximum(nearest, 0.0)[model_of],
        out_by=np.where(in_set, -1, first[beaten_by])[model_of],
        prior=pairs.prior,
    )


def practically_equal(
    values: Values, leader: int, epsilon: float, *, alpha: float = 0.05, prior: Prior | None = None
) -> Mask:
    """Which cells [cells] the leader beats by at most epsilon, all of them with probability 1 - alpha.

    These are D_leader,c + t(1 - alpha/(C - 1)) · sqrt(v~ / S) <= epsilon. The leader is a cell that was named before
    anything was seen, or the one of the highest mean, whose lead over c is at least that of the true best.
    Raises ValueError as `tied_best` does.
    """
    models, _, model_of = _distinct(values)
    pairs = _Pairs(models, alpha, prior)
    difference, width = pairs.compared(slice(model_of[leader], model_of[leader] + 1))
    equal: Mask = (difference + width <= epsilon)[0]
    equal[model_of[leader]] = True
    return equal[model_of]


def fit_prior(values: Values) -> Prior:
    """The prior that the pairs of these cells [cells, seeds] speak for, by moments of log v (limma's fitFDist).

    Smyth 2004 (https://doi.org/10.2202/1544-6115.1027) has independent variances. Pairs share their cells: all of them
    together tell as much as (C - 1)(S - 1) degrees of freedom. Pairs that differ by a constant are left out.
    Raises ValueError with one seed.
    """
    return _fitted(_distinct(values)[0])


def prior_of_pairs(left: Values, right: Values | None = None) -> Prior:
    """The prior that pairs of a cell of `left` with one of `right` [cells, seeds] speak for; None: pairs within `left`.

    See `fit_prior`. Raises ValueError with one seed.
    """
    if right is None:
        return fit_prior(left)
    seeds = left.shape[1]
    variances = _variances(left, right)
    return _by_moments([variances[variances > 0]], seeds - 1, float((len(left) + len(right) - 1) * (seeds - 1)))


def moderated(variance: Values, df: int, prior: Prior) -> tuple[Values, float]:
    """Variances of `df` degrees of freedom raised to what the prior expects, and their degrees of freedom.

    v~ = (d0 s0^2 + df v) / (d0 + df), but v where that is larger: the prior mends what few seeds make too small, and
    takes nothing off large ones. These may be of cells noisier than most, which would be told apart too often.
    """
    trust = 1.0 if math.isinf(prior.df) else prior.df / (prior.df + df)
    expected = trust * prior.variance + (1 - trust) * variance
    return np.maximum(expected, variance, out=expected), min(prior.df + df, prior.pooled)


class _Pairs:
    """All pairs of distinct cells, a block of rows at a time: their number is the square of that of the cells."""

    def __init__(self, models: Values, alpha: float, prior: Prior | None) -> None:
        self.prior = _fitted(models) if prior is None else prior
        self._models = models
        self._means = models.mean(axis=1)
        self._df = models.shape[1] - 1
        self._level = 1 - alpha / max(len(models) - 1, 1)

    def compared(self, rows: slice, columns: NDArray[np.intp] | slice = slice(None)) -> tuple[Values, Values]:
        """D and the half-width of its one-sided bound, [rows, columns]."""
        difference = self._means[rows, None] - self._means[columns]
        variance, df = moderated(_variances(self._models[rows], self._models[columns]), self._df, self.prior)
        variance /= self._df + 1
        return difference, t_quantile(self._level, df) * np.sqrt(variance, out=variance)

    def least_upper(self) -> tuple[Values, NDArray[np.intp]]:
        """The least upper bound of a cell's lead over another cell, and which that is; infinity for a cell alone."""
        bounds, others = [], []
        for rows in _blocks(len(self._models), len(self._models)):
            upper = np.add(*self.compared(rows))
            np.fill_diagonal(upper[:, rows], np.inf)
            others.append(upper.argmin(axis=1))
            bounds.append(upper.min(axis=1))
        return np.concatenate(bounds), np.concatenate(others)

    def least_lower(self, best: NDArray[np.intp]) -> Values:
        """The least lower bound of a cell's lead over one of these other than itself; at most 0."""
        bounds = []
        for rows in _blocks(len(self._models), len(best)):
            lower = np.subtract(*self.compared(rows, best))
            lower[np.arange(rows.start, rows.stop)[:, None] == best] = 0.0
            bounds.append(lower.min(axis=1, initial=0.0))
        return np.concatenate(bounds)


def _fitted(models: Values) -> Prior:
    cells, seeds = models.shape
    return _by_moments(_once_each(models), seeds - 1, float((cells - 1) * (seeds - 1)))


def _by_moments(blocks: Iterable[Values], df: int, pooled: float) -> Prior:
    """The prior of variances above 0, each of `df` degrees of freedom."""
    from scipy.special import digamma, polygamma

    count, total, logs, squares = 0, 0.0, 0.0, 0.0
    for variances in blocks:
        e = np.log(variances) - (digamma(df / 2) - math.log(df / 2))
        count += len(e)
        total += float(variances.sum())
        logs += float(e.sum())
        squares += float(np.square(e, out=e).sum())
    if not count:
        return NO_PRIOR
    spread = (squares - logs**2 / count) / max(count - 1, 1) - float(polygamma(1, df / 2))
    if spread <= polygamma(1, pooled / 2):  # as little as if all were equal
        return Prior(math.inf, total / count, pooled)
    own = 2 * _inverse_trigamma(spread)
    return Prior(own, math.exp(logs / count + float(digamma(own / 2)) - math.log(own / 2)), pooled)


def _once_each(models: Values) -> Iterator[Values]:
    """The variances above 0 of all pairs, a block at a time."""
    for rows in _blocks(len(models), len(models)):
        variances = _variances(models[rows], models[rows.start :])
        variances[np.tril_indices(len(variances))] = 0.0
        yield variances[variances > 0]


def _distinct(values: Values) -> tuple[Values, NDArray[np.intp], NDArray[np.intp]]:
    """The different rows, the first cell that has each, and the row of every cell.

    Taken off are the means of the seeds, which no difference sees: smaller numbers are more exact.
    """
    if values.shape[1] < 2:
        raise ValueError("one seed has no variance: nothing is told apart by it")
    rows, first, row_of = np.unique(values, axis=0, return_index=True, return_inverse=True)
    return rows - rows.mean(axis=0), first, row_of.reshape(-1)


def _variances(left: Values, right: Values) -> Values:
    """Sample variances [left, right] over seeds of the differences of two cells; exactly 0 where these are constant."""
    left, right = (rows - rows.mean(axis=1, keepdims=True) for rows in (left, right))
    squares = np.add.outer((left**2).sum(axis=1), (right**2).sum(axis=1))
    variance: Values = np.einsum("bs,sc->bc", left, np.ascontiguousarray(right.T))  # BLAS threads gain nothing here
    variance *= -2
    variance += squares
    variance[variance <= _SAME * squares] = 0.0
    variance /= left.shape[1] - 1
    return variance


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that have so many columns, small enough for memory."""
    step = max(1, _PAIRS_AT_A_TIME // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _inverse_trigamma(value: float) -> float:
    """The y > 0 with trigamma(y) = value, by Newton's steps on 1 / trigamma, which is nearly linear."""
    from scipy.special import polygamma

    y = 0.5 + 1 / value
    step = math.inf
    while abs(step) > 1e-9 * y:
        trigamma = float(polygamma(1, y))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, y))
        y += step
    return y
