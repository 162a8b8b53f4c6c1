"""The arithmetic of a sweep: what is shared, what is left to do."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_grid import full_grid, setting, strategies, technique

from time_ray.core.grid import Cell, grid
from time_ray.core.plan import NOTHING, Stored, needs, plan


def techniques(count: int, *, alone: bool = False) -> list:
    return [technique(f"technique {i}", alone=alone) for i in range(count)]


@given(st.integers(1, 12), st.integers(1, 9))
def test_distinct_trainings_of_the_full_grid(num_tasks: int, count: int) -> None:
    """12K cells ask for 12KT trainings; the first task is common to all, then there are 2 + 2K trajectories."""
    counts = plan(full_grid(techniques(count), setting(num_tasks)))
    assert counts.cells == 12 * count
    assert counts.trainings_asked == 12 * count * num_tasks
    assert counts.trainings_distinct == 1 + (num_tasks - 1) * (2 + 2 * count)


@pytest.mark.parametrize(("count", "asked", "distinct"), [(1, 240, 77), (3, 720, 153), (8, 1920, 343)])
def test_the_paper_scale(count: int, asked: int, distinct: int) -> None:
    counts = plan(full_grid(techniques(count), setting(20)))
    assert (counts.trainings_asked, counts.trainings_distinct) == (asked, distinct)


def test_techniques_that_leave_one_alone_share_the_second_task_with_ft() -> None:
    """`all` of one expert is that expert, so its init at task 2 is ft's: K trainings fewer."""
    count, num_tasks = 3, 5
    counts = plan(full_grid(techniques(count, alone=True), setting(num_tasks)))
    assert counts.trainings_distinct == 1 + (num_tasks - 1) * (2 + 2 * count) - count


def test_seeds_and_settings_multiply() -> None:
    one = plan(full_grid(techniques(2), setting(4, seed=0)))
    two = plan(full_grid(techniques(2), setting(4, seed=0), setting(4, seed=1)))
    assert two.trainings_distinct == 2 * one.trainings_distinct
    assert two.evaluations_distinct == 2 * one.evaluations_distinct - 1  # the base is one


def test_zs_and_ft_carry_no_technique() -> None:
    cells = grid(strategies(["zs", "ft"]), strategies(["ft"]), techniques(5), [setting(4)])
    assert len({cell.trajectory for cell in cells}) == 2
    assert plan(cells).trainings_distinct == 1 + 2 * 3
    assert plan(cells).merges_distinct == 0


def test_deploying_never_trains() -> None:
    for init in ("zs", "ft", "ema", "all"):
        alone = grid(strategies([init]), strategies(["ft"]), techniques(1), [setting(5)])
        all_deploys = grid(strategies([init]), strategies(["ft", "ema", "all"]), techniques(1), [setting(5)])
        assert plan(alone).trainings_distinct == plan(all_deploys).trainings_distinct == 5


def test_distinct_deployed_models_of_the_last_task() -> None:
    """deploy=ft is technique-free for zs and ft: 2 + 10K final models."""
    for count in (1, 3):
        cells = full_grid(techniques(count), setting(4))
        assert len({needs(cell).final for cell in cells}) == 2 + 10 * count


@pytest.mark.parametrize("replay", [False, True])
def test_replay_is_part_of_an_expert_and_its_absence_of_none(replay: bool) -> None:
    trainings = setting(3, replay=replay).trainings
    assert [len(training.earlier) for training in trainings] == ([0, 1, 2] if replay else [0, 0, 0])
    assert (trainings[2].key == setting(3).trainings[2].key) != replay


def experts_and_scores(cells: Iterable[Cell]) -> tuple[list[str], list[str]]:
    experts = {key for cell in cells for key in (*needs(cell).experts, needs(cell).final)}
    return sorted(experts), sorted({key for cell in cells for key in needs(cell).scores})


@given(st.data())
def test_what_is_stored_is_not_to_do(data: st.DataObject) -> None:
    cells = full_grid(techniques(2), setting(3))
    weights, scored = experts_and_scores(cells)
    have = frozenset(data.draw(st.lists(st.sampled_from(weights))))
    have_scores = frozenset(data.draw(st.lists(st.sampled_from(scored))))
    counts, fresh = plan(cells, Stored(have, have_scores)), plan(cells)
    experts = {key for cell in cells for key in needs(cell).experts}
    assert counts.trainings_to_do == fresh.trainings_distinct - len(experts & have)
    assert counts.evaluations_to_do == fresh.evaluations_distinct - len(have_scores)
    assert sum(work.weights for work in counts.work.values()) == len(weights) - len(have)
    assert sum(work.steps for work in counts.work.values()) == 10 * counts.trainings_to_do


def test_with_everything_stored_there_is_nothing_to_do() -> None:
    cells = full_grid(techniques(2), setting(3))
    weights, scored = experts_and_scores(cells)
    done = plan(cells, Stored(frozenset(weights), frozenset(scored)))
    assert (done.cells_to_do, done.trainings_to_do, done.evaluations_to_do, done.work) == (0, 0, 0, {})
    lost = plan(cells, Stored(frozenset(weights[1:]), frozenset(scored)))
    assert lost.cells_to_do >= 1
    assert plan(cells, NOTHING).cells_to_do == len(cells)


def test_planning_is_linear_in_tasks() -> None:
    """Naive keys of shared parts cost 2^T: 200 tasks would never end."""
    cells = full_grid(techniques(1), setting(200))
    assert plan(cells).trainings_distinct == 1 + 199 * 4
