"""`exclude` and `only`: grids that are no full product, and what their holes cost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_store import experiment, record
from toy_grid import full_grid, setting, technique

from time_ray import api
from time_ray.core.cell_rules import kept, unmatched
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Cell

GRID = full_grid([technique("blend"), technique("ties")], *(setting(seed=seed) for seed in (0, 1)))
VALUES = {axis: sorted({cell.axes[axis] for cell in GRID}) for axis in ("init", "deploy", "technique", "model", "seed")}
RULES = st.lists(
    st.fixed_dictionaries(
        {}, optional={axis: st.lists(st.sampled_from(v), min_size=1, max_size=2) for axis, v in VALUES.items()}
    ).filter(bool),
    max_size=3,
).map(lambda rules: [{axis: tuple(values) for axis, values in rule.items()} for rule in rules])


def scores(cell: Cell, task: int, _length: float) -> dict[str, float]:
    gain = {"ft": 0, "ema": 8, "all": 4}.get(cell.deploy.name, 0) + 3 * (cell.technique.name == "ties")
    return {"chess": 40 + (gain + cell.setting.seed if task else 0), "textures": 64}


@given(exclude=RULES, only=RULES)
def test_a_cell_stays_if_no_rule_excludes_it_and_one_includes_it(
    exclude: list[dict[str, tuple[str, ...]]], only: list[dict[str, tuple[str, ...]]]
) -> None:
    def matches(cell: Cell, rules: list[dict[str, tuple[str, ...]]]) -> bool:
        return any(all(cell.axes[axis] in values for axis, values in rule.items()) for rule in rules)

    left = kept(GRID, exclude, only)
    assert left == tuple(cell for cell in GRID if not matches(cell, exclude) and (not only or matches(cell, only)))
    assert not list(unmatched(GRID, [*exclude, *only]))


def test_keys_do_not_move_and_what_no_cell_needs_is_not_trained(tmp_path: Path) -> None:
    whole = experiment(tmp_path)
    rules: dict[str, object] = {"exclude": [{"init": ["ema", "all"]}, {"init": "zs", "deploy": "ft"}]}
    thin = experiment(tmp_path, **rules)
    assert {cell.key for cell in thin.study.cells} < {cell.key for cell in whole.study.cells}
    assert {(cell.init.name, cell.deploy.name) for cell in thin.study.cells} == {
        ("zs", "ema"), ("zs", "all"), ("ft", "ft"), ("ft", "ema"), ("ft", "all"),
    }  # fmt: skip
    plan = api.plan(thin)
    assert (plan.cells, plan.trainings.distinct) == (20, 6)  # seeds x (zs and ft after the task that they share)
    record(thin.store, thin.study.cells, scores)
    assert all(result.done for result in api.status(thin))
    assert api.plan(thin).trainings.to_do == 0
    assert len(api.best(thin).rows) > 0
    assert api.show(thin.path)["exclude"] == [{"init": ["ema", "all"]}, {"init": ["zs"], "deploy": ["ft"]}]
    assert Experiment(**json.loads(json.dumps(api.show(thin.path)))) == thin.study.experiment


def test_only_takes_names_of_values_with_parameters_and_seeds(tmp_path: Path) -> None:
    opened = experiment(
        tmp_path,
        init=["zs", {"name": "ema", "weight": 0.3}],
        technique=["average", {"name": "ties", "keep": 0.5}],
        only={"init": "ema", "technique": "ties(keep=0.5)", "seed": 1},
    )
    assert {cell.name for cell in opened.study.cells} == {
        f"ema(weight=0.3)/{deploy} ties(keep=0.5) · mini-tiny 2 steps seed 1" for deploy in ("ft", "ema", "all")
    }


def test_a_bound_is_trained_only_where_cells_are_left(tmp_path: Path) -> None:
    opened = experiment(tmp_path, multitask=True, only={"seed": 1})
    assert [bound.setting.seed for bound in opened.study.bounds] == [1]


FAULTS: list[tuple[dict[str, object], str]] = [
    ({"exclude": [{"inti": "zs"}]}, "exclude.0: no such axis 'inti'; did you mean 'init'?"),
    ({"exclude": {"init": "emma"}}, "exclude.0.init: no such init 'emma'; did you mean 'ema'?"),
    ({"only": [{"init": "zs"}, {"technique": "slerp"}]}, "only.1.technique: no such technique 'slerp'; known: "),
    ({"exclude": [{"seed": [0, 7]}]}, "exclude.0.seed: no such seed '7'; known: 0, 1"),
    ({"exclude": [{}]}, "exclude.0: a rule needs an axis and values of it, as in {init: zs, deploy: [ft, ema]}"),
    ({"exclude": [{"init": []}]}, "exclude.0: a rule needs an axis and values of it"),
    ({"only": "zs"}, "only.0: 'zs' is no rule; write an axis and values of it"),
    ({"exclude": {"model": "mini-tiny"}}, "exclude: none of 48 cells is left; take a rule out"),
]


@pytest.mark.parametrize(("changes", "expected"), FAULTS)
def test_rules_that_mean_nothing_are_refused(changes: dict[str, object], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        experiment(tmp_path, **changes)
    (fault,) = error.value.faults
    assert f": {expected}" in fault
    assert fault.startswith(f"{tmp_path / 'scored.yaml'}:")


def test_importance_is_of_the_complete_part_and_says_so(time_ray: Callable[..., Any], tmp_path: Path) -> None:
    opened = experiment(tmp_path, exclude={"init": "zs", "deploy": "ft"})
    record(opened.store, opened.study.cells, scores)
    found = api.importance(opened)
    assert (found.left_out, found.num_left_out) == ({"init": ("zs",)}, 8)
    assert "zs" not in found.axes["init"]
    without = tmp_path / "without"
    without.mkdir()
    smaller = experiment(without, init=["ft", "ema", "all"])
    record(smaller.store, smaller.study.cells, scores)
    assert api.importance(smaller).at_one == found.at_one
    done = time_ray("importance", opened.path)
    assert "the grid has holes: shares are of its complete part, without init zs (8 cells)" in done.err


def test_findings_that_lack_cells_say_which(tmp_path: Path) -> None:
    opened = experiment(
        tmp_path, exclude={"init": "zs", "deploy": "ft", "technique": "ties"}, evaluation={"lengths": 0.5}
    )
    for one in [opened, *api.findings_need(opened).values()]:
        record(one.store, one.study.cells, scores)
    found = {one.claim: one for one in api.findings(opened)}
    for claim in ("R4", "R5", "R7"):
        assert found[claim].verdict == "undecided"
        assert found[claim].decide == (
            f"in {opened.path}, without the rules that leave out zs/ft ties · mini-tiny 2 steps seed 0, "
            "zs/ft ties · mini-tiny 2 steps seed 1"
        )
    assert found["R2"].effect is not None
