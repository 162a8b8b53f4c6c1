"""Races and halving: what is guaranteed, what it costs, and that decisions depend on nothing but the values."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from time_ray.core.racing import (
    FAILED,
    Halve,
    PairPriors,
    Race,
    Removal,
    Rule,
    Selection,
    Values,
    nothing_known,
    select,
    trajectories_run,
)
from time_ray.core.tied_best import prior_of_pairs

EPSILON, DELTA = 2.0, 0.05
NOISE = np.array([0.5, 2.2, 1.0, 1.5])  # by init: zs, ft, ema, all; standard deviations over seeds
Draw = Callable[[np.random.Generator, int], Values]


class Grid(NamedTuple):
    """4 inits x 3 deploys x K techniques as candidates: by number the trajectory, and the init."""

    trajectory: NDArray[np.intp]
    init: NDArray[np.intp]


def grid(techniques: int) -> Grid:
    """Zs and ft serve one model under deploy ft, whatever the technique; ema and all have chains of their own."""
    rows = [(init, init) for init in (0, 1) for _ in range(1 + 2 * techniques)]
    chains = [(2 + k + techniques * number, init) for number, init in enumerate((2, 3)) for k in range(techniques)]
    trajectory, init = zip(*rows, *(chain for chain in chains for _ in range(3)), strict=True)
    return Grid(np.array(trajectory), np.array(init))


def gaps(generator: np.random.Generator, cells: int) -> Values:
    return generator.normal(0, 5, cells)


def clear(generator: np.random.Generator, cells: int) -> Values:
    means = generator.normal(0, 3, cells)
    means[generator.integers(cells)] = means.max() + 4
    return means


def near(generator: np.random.Generator, cells: int) -> Values:
    return generator.normal(0, 2, cells)


def heavy(generator: np.random.Generator, cells: int) -> Values:
    return 3 * generator.standard_t(3, cells)


class World(NamedTuple):
    """True values, techniques, whether noise has heavy tails, and the most that a race may cost with 5 and 10 seeds.

    Costs are shares of the trajectories of the grid, first without a prior, then with one.
    """

    means: Draw
    techniques: int
    heavy: bool
    most: dict[int, tuple[float, float]]


GAPS_COST = {5: (0.66, 0.50), 10: (0.45, 0.30)}
NEAR_COST = {5: (0.78, 0.68), 10: (0.62, 0.55)}
WORLDS = {
    "quickstart": World(gaps, 3, heavy=False, most=GAPS_COST),
    "clear winner": World(clear, 3, heavy=False, most=GAPS_COST),
    "near ties, K = 3": World(near, 3, heavy=False, most=NEAR_COST),
    "near ties, K = 8": World(near, 8, heavy=False, most=NEAR_COST),
    "heavy tails": World(heavy, 3, heavy=True, most=GAPS_COST),
}


def noise(generator: np.random.Generator, init: NDArray[np.intp], seeds: int, *, heavy: bool) -> Values:
    """That of the cells, and what all cells of a seed share."""
    shape = (len(init), seeds)
    own = generator.standard_t(4, shape) / 2**0.5 if heavy else generator.normal(size=shape)
    return NOISE[init][:, None] * own + generator.normal(0, 3, seeds)


def earlier(generator: np.random.Generator, init: NDArray[np.intp], *, heavy: bool) -> PairPriors:
    """What an earlier sweep of 3 seeds tells of variances."""
    values = noise(generator, init, 3, heavy=heavy)
    df, variance, pooled = np.zeros((3, 4, 4))
    for a in range(4):
        for b in range(a, 4):
            prior = prior_of_pairs(values[init == a], None if a == b else values[init == b])
            known = min(prior.df, prior.pooled)
            for pair in ((a, b), (b, a)):
                df[pair], variance[pair], pooled[pair] = known, prior.variance, prior.pooled
    return PairPriors(init, df, variance, pooled)


class Outcome(NamedTuple):
    kept: float
    cost: float


def simulated(world: World, seeds: int, repetitions: int, *, prior: bool, rule: str = "race") -> Outcome:
    """How often a cell within EPSILON of the best survives, and the mean cost."""
    generator, cells = np.random.default_rng(seeds), grid(world.techniques)
    kept, cost = 0, 0
    for _ in range(repetitions):
        means = world.means(generator, len(cells.init))
        values = means[:, None] + noise(generator, cells.init, seeds, heavy=world.heavy)
        known = earlier(generator, cells.init, heavy=world.heavy) if prior else nothing_known(len(means))
        race = Race(len(means), seeds, EPSILON, DELTA, known)
        found = select(values, np.zeros(values.shape, dtype=bool), race if rule == "race" else Halve(cells.trajectory))
        kept += means[list(found.live)].max() >= means.max() - EPSILON
        cost += trajectories_run(found, cells.trajectory)
    whole = repetitions * seeds * (cells.trajectory.max() + 1)
    return Outcome(kept / repetitions, cost / whole)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("prior", [False, True])
def test_survivors_hold_a_cell_within_epsilon_of_the_best(name: str, seeds: int, *, prior: bool) -> None:
    world = WORLDS[name]
    found = simulated(world, seeds, 60, prior=prior)
    assert found.kept >= 1 - DELTA
    assert found.cost <= world.most[seeds][prior] + 0.1


@pytest.mark.nightly
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("prior", [False, True])
def test_the_guarantee_over_thousands_of_races(name: str, seeds: int, *, prior: bool) -> None:
    world = WORLDS[name]
    found = simulated(world, seeds, 2000, prior=prior)
    assert found.kept >= 1 - DELTA
    assert found.cost <= world.most[seeds][prior] + 0.1


@pytest.mark.parametrize(("seeds", "most"), [(5, 0.37), (10, 0.18)])
@pytest.mark.parametrize("name", WORLDS)
def test_halving_costs_a_third_of_five_seeds_and_a_fifth_of_ten(name: str, seeds: int, most: float) -> None:
    assert simulated(WORLDS[name], seeds, 20, prior=False, rule="halve").cost <= most + 0.02


def rules(cells: int, seeds: int) -> st.SearchStrategy[Rule]:
    race = Race(cells, seeds, EPSILON, DELTA, nothing_known(cells))
    return st.sampled_from([race, Halve(np.arange(cells) // 2)])


@given(st.data(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_decisions_are_the_same_however_values_arrive(data: st.DataObject, seed: int) -> None:
    generator = np.random.default_rng(seed)
    cells, seeds = int(generator.integers(2, 9)), int(generator.integers(2, 6))
    whole = generator.normal(0, 4, (cells, 1)) + generator.normal(0, 1, (cells, seeds))
    failed = generator.random((cells, seeds)) < 0.05
    rule = data.draw(rules(cells, seeds))
    there = np.where(failed, np.nan, whole)
    expected = select(there, failed, rule)
    seen = np.full_like(there, np.nan)
    for number in generator.permutation(there.size):
        seen.flat[number] = there.flat[number]
        found = select(seen, failed, rule)
        assert is_beginning(found, expected)
    assert found == expected


def is_beginning(found: Selection, expected: Selection) -> bool:
    """Whether it has decided what the other has, as far as it is; where a seed is begun its failures are known."""
    decided = found.removed == expected.removed[: len(found.removed)]
    return decided and found.ran == expected.ran[: len(found.ran)] and set(found.live) >= set(expected.live)


def test_a_guard_leaves_only_for_what_is_surely_no_worse() -> None:
    """Tolerances would add up if a cell because of which others have left could itself leave a gap of epsilon."""
    known = PairPriors(np.zeros(3, dtype=np.intp), *np.array([100.0, 1.0, np.inf]).reshape(3, 1, 1))
    race = Race(3, 3, EPSILON, DELTA, known)
    values, live = np.array([[1.5, 1.5], [1.4, 2.6]]), np.array([1, 2])
    (plain,) = race.leaving(values, live, [])
    assert (plain.cell, plain.by) == (1, 2)
    assert 0 < plain.ahead <= EPSILON
    assert race.leaving(values, live, [Removal(0, 1, 1, -1.5)]) == []


def test_a_failed_cell_leaves_and_the_others_go_on() -> None:
    failed = np.zeros((3, 2), dtype=bool)
    failed[1, 0] = True
    found = select(np.array([[1.0, 1.0], [np.nan] * 2, [1.5, 1.2]]), failed, Halve(np.arange(3)))
    assert found.removed[0] == Removal(1, 1, FAILED, -np.inf)
    assert found.live == (2,)
    assert found.over
