"""Cells into trials: every cell once, trajectories together, the longest first."""

from hypothesis import given
from hypothesis import strategies as st
from toy_grid import full_grid, setting, technique

from time_ray.core.plan import Stored, needs, plan
from time_ray.trials import Costs, trials

CELLS = full_grid([technique(), technique("sum", weighted=False, alone=False)], setting(3), setting(3, seed=1))
ONE = {"toy": Costs(1.0, 0.0)}


@given(st.floats(0.1, 10), st.floats(0, 10))
def test_every_cell_is_in_one_trial_with_its_trajectory(step: float, evaluation: float) -> None:
    made = trials(CELLS, {"toy": Costs(step, evaluation)})
    assert sorted(key for trial in made for key in trial.cells) == sorted(cell.key for cell in CELLS)
    by_key = {cell.key: cell.trajectory for cell in CELLS}
    assert [len({by_key[key] for key in trial.cells}) for trial in made] == [1] * len(set(by_key.values()))
    assert [trial.cost for trial in made] == sorted((trial.cost for trial in made), reverse=True)


def test_a_chain_is_what_is_yet_to_be_trained() -> None:
    first, *rest = needs(CELLS[0]).experts
    stored = Stored({first}, frozenset())
    trial = next(trial for trial in trials(CELLS, ONE, stored) if CELLS[0].key in trial.cells)
    assert trial.chain == tuple(rest)
    assert trial.cost == sum(needs(CELLS[0]).experts[key] for key in rest)


def test_evaluations_count_once_a_trajectory() -> None:
    work = plan(CELLS[:1])
    (trial,) = trials(CELLS[:1], {"toy": Costs(0.0, 1.0)})
    assert trial.cost == work.evaluations_to_do


def test_one_cell_a_trial() -> None:
    assert sorted(trial.cells for trial in trials(CELLS, ONE, one_each=True)) == sorted((c.key,) for c in CELLS)


def test_no_cells_are_no_trials() -> None:
    assert trials([], {}) == []
