"""The tied-best set: against its definitions, written out, and by simulation, how often it says what is true."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from scipy import stats

from time_ray.core.statistics import t_quantile
from time_ray.core.tied_best import (
    NO_PRIOR,
    Prior,
    TiedBest,
    _by_moments,
    fit_prior,
    moderated,
    practically_equal,
    tied_best,
)

Values = NDArray[np.float64]
PRIORS = st.sampled_from([None, NO_PRIOR, Prior(4.0, 1.0), Prior(math.inf, 0.5), Prior(math.inf, 0.5, 6.0)])


@st.composite
def matrices(draw: st.DrawFn, least_cells: int = 2) -> Values:
    cells, seeds = draw(st.integers(least_cells, 9)), draw(st.integers(2, 6))
    generator = default_rng(draw(st.integers(0, 10**6)))
    return generator.normal(50, 2, (cells, 1)) + generator.normal(0, 1, (cells, seeds)) + generator.normal(0, 3, seeds)


def written_out(values: Values, alpha: float, prior: Prior) -> tuple[list[bool], list[float], list[float], list[int]]:
    """The set, the intervals, and who puts whom out: pair by pair, with scipy's t distribution."""
    cells, seeds = values.shape
    lead, width = np.zeros((cells, cells)), np.zeros((cells, cells))
    df = min(prior.df + seeds - 1, prior.pooled)
    for b in range(cells):
        for c in range(cells):
            differences = values[b] - values[c]
            variance = differences.var(ddof=1)
            if math.isinf(prior.df):
                expected = prior.variance
            else:
                expected = (prior.df * prior.variance + (seeds - 1) * variance) / (prior.df + seeds - 1)
            lead[b, c] = differences.mean()
            width[b, c] = stats.t.ppf(1 - alpha / (cells - 1), df) * math.sqrt(max(expected, variance) / seeds)
    others = [[b for b in range(cells) if b != c] for c in range(cells)]
    in_set = [all(lead[b, c] <= width[b, c] for b in others[c]) for c in range(cells)]
    upper = [max(0.0, min(lead[c, b] + width[c, b] for b in others[c])) for c in range(cells)]
    lower = [min([0.0, *(lead[c, b] - width[c, b] for b in others[c] if in_set[b])]) for c in range(cells)]
    clearest = [max(others[c], key=lambda b: lead[b, c] - width[b, c]) for c in range(cells)]
    return in_set, lower, upper, [-1 if inside else b for inside, b in zip(in_set, clearest, strict=True)]


@settings(max_examples=50)
@given(matrices(), st.sampled_from([0.01, 0.05, 0.2]), PRIORS)
def test_set_and_intervals_are_those_of_their_definitions(values: Values, alpha: float, prior: Prior | None) -> None:
    found = tied_best(values, alpha=alpha, prior=prior)
    assert found.prior == (prior or fit_prior(values))
    in_set, lower, upper, out_by = written_out(values, alpha, found.prior)
    assert found.in_set.tolist() == in_set
    assert found.lower.tolist() == pytest.approx(lower)
    assert found.upper.tolist() == pytest.approx(upper)
    assert found.out_by.tolist() == out_by


@settings(max_examples=50)
@given(matrices(), st.floats(0.1, 8), PRIORS, st.data())
def test_practical_equality_is_that_of_its_definition(
    values: Values, epsilon: float, prior: Prior | None, data: st.DataObject
) -> None:
    leader = data.draw(st.integers(0, len(values) - 1))
    cells, seeds = values.shape
    prior = prior or fit_prior(values)
    for c, equal in enumerate(practically_equal(values, leader, epsilon, prior=prior)):
        differences = values[leader] - values[c]
        variance, df = moderated(np.array([differences.var(ddof=1)]), seeds - 1, prior)
        width = stats.t.ppf(1 - 0.05 / (cells - 1), df) * math.sqrt(variance[0] / seeds)
        assert equal == (c == leader or differences.mean() + width <= epsilon)


def same(found: TiedBest, other: TiedBest, scale: float = 1.0) -> bool:
    return (
        found.in_set.tolist() == other.in_set.tolist()
        and other.lower.tolist() == pytest.approx((scale * found.lower).tolist(), rel=1e-6, abs=1e-9 * scale)
        and other.upper.tolist() == pytest.approx((scale * found.upper).tolist(), rel=1e-6, abs=1e-9 * scale)
    )


@settings(max_examples=50)
@given(matrices(), st.integers(0, 10**6))
def test_order_does_not_matter(values: Values, number: int) -> None:
    generator = default_rng(number)
    cells, seeds = (generator.permutation(size) for size in values.shape)
    whole = tied_best(values)
    assert same(whole, tied_best(values[:, seeds]))
    moved = tied_best(values[cells])
    for row, cell in enumerate(cells):
        assert moved.in_set[row] == whole.in_set[cell]
        assert moved.lower[row] == pytest.approx(whole.lower[cell])
        assert moved.out_by[row] == (-1 if whole.in_set[cell] else list(cells).index(whole.out_by[cell]))


@settings(max_examples=50)
@given(matrices(), st.floats(0.01, 100), st.lists(st.floats(-50, 50), min_size=6, max_size=6))
def test_what_is_common_to_a_seed_cancels_and_units_do_not_matter(
    values: Values, scale: float, shifts: list[float]
) -> None:
    assert same(tied_best(values), tied_best(scale * (values + shifts[: values.shape[1]])), scale)


@settings(max_examples=50)
@given(matrices(), st.data())
def test_a_model_under_two_names_counts_once(values: Values, data: st.DataObject) -> None:
    copies = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=5))
    whole, more = tied_best(values), tied_best(np.vstack([values, values[copies]]))
    assert more.prior == whole.prior
    for name in ("in_set", "lower", "upper", "out_by"):
        once, twice = getattr(whole, name), getattr(more, name)
        assert twice.tolist() == [*once, *once[copies]]


def test_cells_that_differ_in_nothing_are_all_best() -> None:
    found = tied_best(np.tile([40.0, 42.0, 41.0], (4, 1)))
    assert found.in_set.all()
    assert (found.upper > 0).all()
    assert (found.lower == 0).all()
    assert found.prior == NO_PRIOR
    assert practically_equal(np.tile([40.0, 42.0, 41.0], (4, 1)), 2, 0.0).all()


def test_a_constant_lead_is_told_and_leaves_the_fit_alone() -> None:
    values = default_rng(0).normal(50, 1, (6, 4))
    doubled = np.vstack([values, values[0] - 1e3, values[1] - 1e3])
    assert not tied_best(doubled, prior=NO_PRIOR).in_set[-2:].any()
    assert 0.5 < fit_prior(doubled).variance / fit_prior(values).variance < 2


def test_one_seed_tells_nothing_apart() -> None:
    for ask in (tied_best, fit_prior, lambda values: practically_equal(values, 0, 1.0)):
        with pytest.raises(ValueError, match="one seed"):
            ask(np.array([[1.0], [2.0]]))


@pytest.mark.parametrize("df", [1, 2, 4, 9])
@pytest.mark.parametrize("own", [2.0, 4.0, 10.0])
def test_the_fit_finds_the_prior_that_variances_were_drawn_from(df: int, own: float) -> None:
    generator = default_rng(7)
    count = 400_000
    variances = 2.5 * own / generator.chisquare(own, count) * generator.chisquare(df, count) / df
    found = _by_moments(np.split(variances, 8), df, 1e9)
    assert found.variance == pytest.approx(2.5, rel=0.03)
    assert 1 / found.df == pytest.approx(1 / own, abs=0.03)


def test_equal_variances_are_pooled_and_unequal_ones_are_not() -> None:
    generator = default_rng(3)
    normal = generator.normal(0, 1.5, (200, 5))
    same_noise, other_noise = fit_prior(normal), fit_prior(normal * generator.choice([0.3, 2.0], (200, 1)))
    assert same_noise.variance == pytest.approx(2 * 1.5**2, rel=0.1)
    assert same_noise.df > 40
    assert other_noise.df < 5


# Simulations

NOISE: dict[str, Callable[[Generator, tuple[int, int]], Values]] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "heavy": lambda generator, shape: generator.standard_t(3, size=shape) / math.sqrt(3),
}
SEEDS = (2, 3, 5, 10)


def four_groups(generator: Generator, cells: int) -> Values:
    """Noise as the quickstart's inits have it, in points; which cell has which is drawn anew."""
    return generator.permutation(noisiest_first(generator, cells))


def noisiest_first(_: Generator, cells: int) -> Values:
    """The same, but the best is always one of the noisiest: more than a common prior can know."""
    return np.repeat([2.2, 1.5, 1.0, 0.5], -(-cells // 4))[:cells]


SPREADS: dict[str, Callable[[Generator, int], Values]] = {
    "equal": lambda _, cells: np.ones(cells),
    "groups": four_groups,
    "noisiest": noisiest_first,
}


MEANS: dict[str, Callable[[int], Values]] = {  # the first cell is the best
    "tied": lambda cells: np.r_[1e-6, np.zeros(cells - 1)],  # the hardest: its intervals hold only if it is in the set
    "apart": lambda cells: -np.linspace(0, 3, cells),
}


def truth_kept(cells: int, seeds: int, noise: str, spread: str, means: str, times: int) -> float:
    """How often the best is in the set and all intervals hold the truth."""
    generator = default_rng([cells, seeds, len(noise), len(spread), len(means)])
    true = MEANS[means](cells)
    truth = true - np.where(np.arange(cells) == 0, true[1], true[0])
    kept = 0
    for _ in range(times):
        values = true[:, None] + SPREADS[spread](generator, cells)[:, None] * NOISE[noise](generator, (cells, seeds))
        found = tied_best(values)
        kept += bool(found.in_set[0] and ((found.lower <= truth) & (truth <= found.upper)).all())
    return kept / times


def least(times: int) -> float:
    """95 % less three standard deviations of a simulation."""
    return 0.95 - 3 * math.sqrt(0.95 * 0.05 / times)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("noise", NOISE)
def test_the_best_is_in_the_set_and_the_truth_in_all_intervals(seeds: int, noise: str) -> None:
    assert truth_kept(16, seeds, noise, "groups", "tied", 400) >= least(400)


@pytest.mark.nightly
@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("cells", [2, 3, 5, 32])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("spread", SPREADS)
def test_the_best_is_in_the_set_of_any_grid(seeds: int, noise: str, spread: str, means: str, cells: int) -> None:
    known = 0.02 if spread == "noisiest" else 0.0  # what the documentation grants
    assert truth_kept(cells, seeds, noise, spread, means, 2000) >= least(2000) - known


def test_more_seeds_and_a_prior_tell_more_apart() -> None:
    generator = default_rng(5)
    sizes = {}
    for seeds in SEEDS:
        found = []
        for _ in range(60):
            values = generator.normal(0, 1.5, (32, 1)) + four_groups(generator, 32)[:, None] * generator.normal(
                size=(32, seeds)
            )
            found.append([tied_best(values).in_set.sum(), tied_best(values, prior=NO_PRIOR).in_set.sum()])
        sizes[seeds] = np.mean(found, axis=0)
    fitted, alone = np.transpose([sizes[seeds] for seeds in SEEDS])
    assert (np.diff(fitted) < 0).all()
    assert (fitted < alone).all()
    assert alone[0] - fitted[0] > 2


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_a_prior_of_earlier_sweeps_is_used_as_given(number: int) -> None:
    values = default_rng(number).normal(0, 1, (12, 2)) + np.linspace(0, 4, 12)[:, None]
    known = tied_best(values, prior=Prior(math.inf, 2.0))
    assert known.prior == Prior(math.inf, 2.0)
    difference = values.mean(axis=1)[:, None] - values.mean(axis=1)
    variance = np.maximum((values[:, None] - values).var(axis=2, ddof=1), 2.0)  # raised to what is known, never lowered
    beaten = difference > t_quantile(1 - 0.05 / 11, math.inf) * np.sqrt(variance / 2)
    assert known.in_set.tolist() == (~beaten.any(axis=0)).tolist()


def test_practical_equality_is_rarely_claimed_of_what_is_worse() -> None:
    generator = default_rng(11)
    means = -np.r_[0.0, np.full(11, 1.01)]  # just beyond epsilon
    wrong = 0
    for _ in range(600):
        values = means[:, None] + 0.5 * generator.normal(size=(12, 5))
        leader = int(values.mean(axis=1).argmax())
        wrong += bool((practically_equal(values, leader, 1.0) & (means[leader] - means > 1)).any())
    assert 0 < wrong / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
