"""A grid as trials: what they make is what the plan counts, in the order of the loop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_grid import full_grid, setting, technique

from time_ray.core.plan import NOTHING, Stored, plan
from time_ray.core.schedule import Simulator
from time_ray.rates import Rate
from time_ray.trials import by_trajectory
from time_ray.workload import TrialNeeds, workload

CELLS = full_grid(
    [technique(), technique("sum", weighted=False, alone=False)],
    setting(4),
    setting(4, seed=1),
    setting(4, model="big", steps=20),
)
NEEDS = {
    "toy": TrialNeeds(Rate(step=2.0, evaluation=4.0), 1.0, 10),
    "big": TrialNeeds(Rate(step=3.0, evaluation=5.0), 8.0, 100),
}
SIZES = {"S": (0.05, 20, 1), "B": (0.2, 60, 1), "L": (1.0, 240, 1), "H": (2.0, 500, 2), "g": (3.0, 800, 4)}
MODELS_OF_ALL_SIZES = Simulator(
    workload(
        full_grid(
            [technique(f"technique {number}") for number in range(8)],
            *(setting(20, model=model, steps=steps) for model in SIZES for steps in (142, 1420)),
        ),
        {model: TrialNeeds(Rate(step, evaluation), gpus, 0) for model, (step, evaluation, gpus) in SIZES.items()},
        NOTHING,
    ).trials
)
EXPERTS = sorted({step.expert.key for cell in CELLS for step in cell.walk()})
SCORES = sorted({c.setting.scores_key(step.deployed) for c in CELLS for step in c.walk()})


@given(st.sets(st.sampled_from(EXPERTS)), st.sets(st.sampled_from(SCORES)))
def test_trials_make_what_the_plan_counts(experts: set[str], scores: set[str]) -> None:
    have = Stored(experts, scores)
    todo = workload(CELLS, NEEDS, have)
    simulator = Simulator(todo.trials, made=todo.stored)
    counts = plan(CELLS, have).work
    of_model = [(counts[model], NEEDS[model]) for model in NEEDS]
    seconds = [w.steps * n.rate.step + w.evaluations * n.rate.evaluation for w, n in of_model]
    assert simulator.totals.work == pytest.approx(sum(s * n.gpus for s, (_, n) in zip(seconds, of_model, strict=True)))
    assert simulator.on(8).seconds >= max(simulator.chains, default=0)
    if not scores:  # what is scored may be kept already
        assert simulator.totals.written == sum(w.weights * n.num_bytes for w, n in of_model)


def test_a_trial_is_a_trajectory() -> None:
    todo = workload(CELLS, NEEDS, NOTHING)
    groups = by_trajectory(CELLS).values()
    assert len(todo.trials) == len(groups)
    assert set(todo.trainings) == {4}
    assert [trial.gpus for trial in todo.trials] == [NEEDS[group[0].setting.model.label].gpus for group in groups]
    for trial, group in zip(todo.trials, groups, strict=True):
        base, *stages = trial.stages
        assert [piece.key for piece in base] == [group[0].setting.scores_key(group[0].setting.base)]
        experts = [stage[0].key for stage in stages if stage[0].read]
        assert experts == [step.expert.key for step in group[0].walk()]


@pytest.mark.parametrize("gpus", [8, 32, 64, 100, 1000])
def test_models_of_all_sizes_are_within_a_tenth_of_the_ideal(gpus: int) -> None:
    """TIME's full grid over 20 tasks; the ideal is the larger of work / GPUs and the longest chain."""
    simulator = MODELS_OF_ALL_SIZES
    ideal = max(simulator.totals.work / gpus, *simulator.chains)
    assert ideal <= simulator.on(gpus).seconds <= 1.1 * ideal


def test_cells_that_are_done_are_no_trials() -> None:
    everything = Stored(set(EXPERTS), {*SCORES, *(c.setting.scores_key(c.setting.base) for c in CELLS)})
    assert workload(CELLS, NEEDS, everything).trials == []
    one_left = Stored(set(EXPERTS), everything.scores - {SCORES[0]})
    todo = workload(CELLS, NEEDS, one_left)
    assert todo.trials
    assert set(todo.trainings) == {0}
