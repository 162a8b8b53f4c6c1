"""The simulated schedule: by hand where it is small, by what must hold where it is not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.schedule import Delays, Piece, SimulatedTrial, Simulator

SHORT = st.integers(1, 20)


def chain(name: str, *seconds: float, first: str | None = None, gpus: float = 1.0) -> SimulatedTrial:
    """Stages of one piece each; the first may be one that other trials need, too."""
    keys = [first or f"{name}0", *(f"{name}{number}" for number in range(1, len(seconds)))]
    return SimulatedTrial(
        [[Piece(key, took, written=10, read=10)] for key, took in zip(keys, seconds, strict=True)], gpus, keys
    )


def test_a_small_case_by_hand() -> None:
    """Three chains share their first piece (4 s). On two GPUs:

    0-4 a makes it, b does not start; 4-10 a is at 6 s of its own; 4-9 b at 5 s; 9-11 c finds the first and makes 2 s.
    """
    trials = [chain("c", 4, 2, first="both"), chain("a", 4, 6, first="both"), chain("b", 4, 5, first="both")]
    simulator = Simulator(trials)
    found = simulator.on(2)
    assert (found.seconds, found.peak) == (11, 2)
    assert found.held == 10 + 5 + 2
    assert simulator.totals == (4 + 6 + 5 + 2, 40, 20)
    assert simulator.chains == [6, 10, 9]
    assert simulator.on(1).seconds == 17
    assert simulator.on(3).seconds == 10
    assert simulator.enough() == 3


def test_the_longest_chain_starts_first() -> None:
    trials = [chain("a", 1), chain("b", 1), chain("c", 2)]
    assert Simulator(trials).on(2).seconds == 2  # in the order written it would be 3


def test_what_others_are_making_of_a_stage_is_waited_for_after_the_rest_of_it() -> None:
    """Both score two models, one of them together: the longer chain takes that one, the other its own, then waits."""
    shared, own = Piece("shared", 5), Piece("own", 3)
    trials = [SimulatedTrial([[shared, Piece("a", 4)]], 1), SimulatedTrial([[shared, own], [Piece("next", 1)]], 1)]
    simulator = Simulator(trials)
    found = simulator.on(2)
    # both chains are 9 s: the first of equals has `shared`, the second makes `own` till 3, waits till 9, ends at 10
    assert found.seconds == 10
    assert found.held == 9 + 10
    assert simulator.totals.work == 13


def test_a_wide_trial_is_not_kept_waiting_by_narrow_ones() -> None:
    """On four GPUs the narrow one with the longest chain is first, till 10 s; the wide one is next, till 19."""
    narrow = [chain(f"n{number}", 8) for number in range(6)]
    trials = [chain("first", 10), chain("wide", 9, gpus=4), *narrow]
    assert Simulator(trials).on(4).seconds == 10 + 9 + 2 * 8
    assert Simulator(trials).on(5).seconds == 9 + 2 * 8  # the wide one has room beside the first from the start


def test_what_is_made_is_not_made_again_but_read() -> None:
    simulator = Simulator([chain("a", 4, 6)], made={"a0"})
    assert simulator.on(1).seconds == 6
    assert simulator.totals == (6, 10, 10)


def test_gpus_are_held_by_model_and_whole_or_in_shares() -> None:
    wide, narrow = chain("wide", 10, gpus=4), [chain(f"n{number}", 4) for number in range(4)]
    assert Simulator([*narrow, wide]).on(4).seconds == 14
    assert Simulator([*narrow, wide]).on(8).seconds == 10
    tenths = [chain(f"t{number}", 1, gpus=0.1) for number in range(10)]
    assert Simulator(tenths).on(1).seconds == 1  # 1.0 // 0.1 is 9


def test_a_process_starts_once_and_is_reused() -> None:
    delays = Delays(first=15, later=1)
    assert Simulator([chain("a", 10), chain("b", 9)], delays=delays).on(1).seconds == 15 + 10 + 1 + 9
    assert Simulator([chain("a", 10), chain("b", 9)], delays=delays).on(2).seconds == 15 + 10


def test_failures_cost_what_was_done_since_the_last_checkpoint() -> None:
    delays = Delays(mtbf=1.0, checkpoint=600)
    assert delays.stretched(600, 1) == pytest.approx(3600 * math.expm1(1 / 6))
    assert delays.stretched(6000, 1) == pytest.approx(10 * delays.stretched(600, 1))
    assert delays.stretched(600, 8) > delays.stretched(600, 1) > 600
    assert Delays().stretched(600, 8) == 600
    assert Delays(mtbf=1e9).stretched(600, 1) == pytest.approx(600, rel=1e-6)
    assert Simulator([chain("a", 600)], delays=delays).on(1).seconds == pytest.approx(delays.stretched(600, 1))


def test_nothing_to_do() -> None:
    assert Simulator([]).on(8) == (0, 0, 0)
    assert Simulator([]).enough() == 0


@st.composite
def grids(draw: st.DrawFn) -> list[SimulatedTrial]:
    """Settings of several trajectories of equal length, which share their first expert and the base's scores."""
    trials = []
    for setting in range(draw(st.integers(1, 6))):
        tasks, base = draw(st.integers(1, 6)), Piece(f"base {setting}", draw(SHORT))
        first = Piece(f"first {setting}", draw(SHORT))
        for trajectory in range(draw(st.integers(1, 8))):
            name = f"{setting} {trajectory}"
            experts = [first, *(Piece(f"{name} expert {task}", first.seconds) for task in range(1, tasks))]
            scores = [
                [Piece(f"{name} scores {task} {cell}", base.seconds) for cell in range(draw(st.integers(0, 3)))]
                for task in range(tasks)
            ]
            stages = [stage for pair in zip(([e] for e in experts), scores, strict=True) for stage in pair if stage]
            trials.append(SimulatedTrial([[base], *stages], 1, [expert.key for expert in experts]))
    return trials


@given(grids(), st.integers(1, 40))
def test_no_schedule_beats_the_ideal_or_is_worse_than_its_bound(trials: list[SimulatedTrial], gpus: int) -> None:
    """Graham's bound of list scheduling: work / GPUs + the longest chain, if waiting counts as work."""
    simulator = Simulator(trials)
    found, work, longest = simulator.on(gpus), simulator.totals.work, max(simulator.chains)
    assert found.seconds >= max(work / gpus, longest) - 1e-9
    assert found.seconds <= sum(simulator.chains) / gpus + longest
    assert work - 1e-9 <= found.held <= gpus * found.seconds + 1e-9
    assert found.peak <= gpus


@given(grids(), st.integers(1, 3))
def test_many_trials_for_each_gpu_or_enough_gpus_are_within_a_tenth_of_the_ideal(
    trials: list[SimulatedTrial], gpus: int
) -> None:
    simulator = Simulator(trials)
    longest = max(simulator.chains)
    everything = simulator.on(simulator.enough()).seconds
    assert everything <= 1.1 * longest
    waiting = simulator.on(gpus).held - simulator.totals.work
    if simulator.totals.work / gpus >= 10 * longest:
        assert simulator.on(gpus).seconds <= 1.1 * simulator.totals.work / gpus + waiting / gpus


def test_a_place_that_is_kept_may_want_one_more_gpu() -> None:
    """With two, the first trial waits, since the third, which is long, is to start as soon as its expert is made."""

    def piece(key: str) -> Piece:
        return Piece(key=key, seconds=1, written=0, read=0)

    short = SimulatedTrial(stages=[[piece("base 0")], [piece("first 0")]], gpus=1, awaited=["first 0"])
    long = [
        SimulatedTrial(stages=[[piece("base 1")], [piece("first 1")], [piece(last)]], gpus=1, awaited=["first 1"])
        for last in ("one", "other")
    ]
    simulator = Simulator([short, *long])
    assert [simulator.on(gpus).seconds for gpus in (2, 3, math.inf)] == [5, 3, 3]
    assert simulator.enough() == 3


@given(grids())
def test_more_gpus_than_enough_change_nothing_and_one_less_does(trials: list[SimulatedTrial]) -> None:
    simulator = Simulator(trials)
    enough = simulator.enough()
    best = simulator.on(enough).seconds
    assert best == pytest.approx(simulator.on(math.inf).seconds)
    assert simulator.on(10 * enough).seconds == pytest.approx(best)
    if enough > 1:
        assert simulator.on(enough - 1).seconds > best


@given(grids(), st.integers(1, 10))
def test_stages_that_are_joined_take_as_long_as_apart(trials: list[SimulatedTrial], gpus: int) -> None:
    """Joining is for speed: a schedule in which every piece may be shared is the same."""
    joined, apart = Simulator(trials), Simulator(trials)
    apart._shared = frozenset(piece.key for trial in trials for stage in trial.stages for piece in stage)
    apart.stages = [list(apart._joined(trial)) for trial in trials]
    assert apart.on(gpus).seconds == pytest.approx(joined.on(gpus).seconds)
    assert apart.on(gpus).held == pytest.approx(joined.on(gpus).held)
