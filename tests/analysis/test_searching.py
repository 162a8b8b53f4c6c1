"""Searches on stored scores: the same decisions whatever is killed, what the outputs say, and what is known before."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_store import Percents, experiment, record

from time_ray import api
from time_ray.analysis.search_verdict import search_lines
from time_ray.analysis.searching import Searched, candidates, results_of, searched
from time_ray.core.grid import Cell
from time_ray.core.racing import FAILED
from time_ray.report.running import best_so_far, short_name
from time_ray.results import Outcome, Removed
from time_ray.search_prior import known_before, remember

Command = Callable[..., Any]
VALUES = {"zs": 20.0, "ft": 50.0, "ema": 58.0}
SMALL: dict[str, Any] = {
    "init": ["zs", "ft", "ema"],
    "deploy": ["ft", "ema"],
    "seed": [0, 1, 2, 3],
    "search": {"epsilon": 2.0},
}


def scorer(cell: Cell, task: int, length: float) -> Percents:
    """The init decides, deploy and technique a little; seeds differ, and every model has noise of its own."""
    *_, last = cell.walk()
    noise = np.random.default_rng(list(last.deployed.key.encode())).normal()
    bonus = {"ft": 0.0, "ema": 8.0 if cell.technique.name == "ties" else 4.0}[cell.deploy.name]
    value = np.clip(VALUES[cell.init.name] + bonus + 3 * (cell.setting.seed % 3) + noise, 0, 100) if task else 30.0
    return {"chess": float(value), "textures": float(value * length)}


def searching(opened: api.Opened) -> Searched:
    found = searched(opened.study, opened.store)
    assert found is not None
    return found


def run(opened: api.Opened, most: int = 10**9, order: int = 0) -> Searched:
    """The search has gone on as a sweep does it, by at most so many cells, which end in any order."""
    remember(opened.study, opened.files)
    generator = np.random.default_rng([order, most])
    while True:
        found = searching(opened)
        done = {one.cell.key for one in results_of(opened.study, opened.store) if one.done}
        lacking = [cell for cell in found.wanted if cell.key not in done]
        if not lacking or most <= 0:
            return found
        chosen = generator.permutation(len(lacking))[: max(1, len(lacking) // 2)][:most]
        record(opened.store, [lacking[number] for number in chosen], scorer)
        most -= len(chosen)


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> api.Opened:
    opened = experiment(tmp_path_factory.mktemp("raced"), **SMALL)
    run(opened)
    return opened


def test_a_search_that_is_killed_again_and_again_decides_the_same(tmp_path: Path, raced: api.Opened) -> None:
    kills = 0
    while not (found := run(experiment(tmp_path, **SMALL), most=1, order=kills)).selection.over:
        kills += 1
    assert kills >= 15
    assert found.selection == searching(raced).selection


def test_cells_that_left_keep_their_rows_and_say_why(raced: api.Opened, time_ray: Command) -> None:
    found, results = searching(raced), api.status(raced)
    out = [one for one in results if one.removed]
    assert {one.cell.init.name for one in out} == {"zs", "ft", "ema"}
    assert any(one.removed and one.rows for one in out)
    best = found.survivors[0].name
    assert found.removed[out[0].cell.key].text.startswith(f"removed after 2 seeds by {best} (at least ")
    assert not any(one.due for one in results)
    assert Outcome(results).exit_code == 0
    done = time_ray("best", raced.path, "-f", "json")
    assert done.status == 0, done.err
    rows = json.loads(done.out)
    by_fate = {bool(row["removed"]): row for row in rows}
    assert by_fate[True]["removed_by"] == best
    assert by_fate[True]["removed_after"] == 2
    assert by_fate[True]["value"] is not None
    assert by_fate[False]["removed_by"] is None
    shown = time_ray("best", raced.path, "--all")
    assert "removed after 2 seeds by" in shown.err
    assert "not finished" not in shown.err


def test_no_cell_is_run_after_it_left(raced: api.Opened) -> None:
    left = [one for one in api.status(raced) if one.removed and one.cell.setting.seed > 1]
    alone = [one for one in left if one.cell.init.name == "zs"]
    assert alone
    assert not any(one.scored for one in alone)


def test_a_full_sweep_fills_in_the_rest(tmp_path: Path) -> None:
    opened = experiment(tmp_path, **SMALL)
    run(opened)
    full = experiment(tmp_path, **{**SMALL, "search": None})
    lacking = [one.cell for one in api.status(full) if not one.done]
    assert 0 < len(lacking) < len(full.study.cells)
    assert api.plan(full).trainings.to_do > 0
    record(full.store, lacking, scorer)
    assert all(one.done and one.removed is None for one in api.status(full))
    again = searching(experiment(tmp_path, **SMALL))
    assert again.selection == run(opened).selection


def test_only_survivors_are_scored_at_other_lengths(tmp_path: Path) -> None:
    opened = experiment(tmp_path, **SMALL, evaluation={"lengths": [0.5]})
    assert not any(cell.setting.scoring.lengths for cell in searching(opened).wanted)
    found = run(opened)
    assert all(cell.setting.scoring.lengths for cell in found.wanted)
    results = api.status(opened)
    assert {bool(one.at_lengths) for one in results if one.removed} == {False}
    assert {bool(one.at_lengths) for one in results if one.wanted and not one.removed} == {True}
    assert Outcome(results).exit_code == 0


def test_a_cell_that_failed_leaves(tmp_path: Path) -> None:
    opened = experiment(tmp_path, **SMALL)
    lost = candidates(opened.study)[-1]
    found = searched(opened.study, opened.store, {cell.key for cell in lost.cells[0]})
    assert found is not None
    assert [one.by for one in found.selection.removed] == [FAILED]
    assert found.removed[lost.first.key].text == "removed after 1 seed: it failed"
    assert lost.first.key not in {cell.key for cell in found.wanted}


def test_a_candidate_is_named_by_the_techniques_of_its_own_place(tmp_path: Path) -> None:
    left_out = [{"init": "zs", "deploy": "ft", "technique": "ties"}]
    opened = experiment(tmp_path, **SMALL, technique=["average", "slerp", "ties"], exclude=left_out)
    names = {one.name.split(" ·")[0]: len(one.cells[0]) for one in candidates(opened.study)}
    assert (names["zs/ft any"], names["ft/ft any"], names["zs/ema ties"]) == (2, 3, 1)


def test_a_sweep_that_lost_a_cell_to_a_failure_is_not_done(tmp_path: Path) -> None:
    """The same command tries it again; the seeds that it was never begun on are not waited for."""
    opened = experiment(tmp_path, **SMALL)
    every, lost = candidates(opened.study), candidates(opened.study)[-1]
    failed = {cell.key for cell in lost.cells[0]}
    while (found := searched(opened.study, opened.store, failed)) and not found.selection.over:
        record(opened.store, [cell for cell in found.wanted if cell.key not in failed], scorer)
    results = results_of(opened.study, opened.store, failed)
    assert {one.cell.key for one in results if one.due and one.removed} == failed
    assert Outcome(results).exit_code == 1
    survivor = next(one for one in every if one.first.key in {cell.key for cell in found.wanted} if found)
    again = searched(opened.study, opened.store, failed | {survivor.cells[0][0].key})
    assert again
    assert found
    assert again.selection == found.selection  # it was scored before it failed, as at other lengths


def test_the_best_so_far_was_not_removed(raced: api.Opened) -> None:
    results = [replace(one, removed=None) for one in api.status(raced)]
    best = best_so_far(results)
    why = Removed(1, "another", -1.0, "GM", sure=True)
    left = [replace(one, removed=why) if short_name(one.cell) in best else one for one in results]
    assert best_so_far(left) not in ("", best)


def test_what_is_said_at_the_end(raced: api.Opened) -> None:
    left, sure, variances, cost = search_lines(raced.study, raced.store)
    assert left.startswith("race: ")
    assert "with a probability of 95 %, a survivor is within 2 GM of the best" in sure
    assert variances == "variances are those of this sweep alone"
    assert "of the grid's" in cost
    assert search_lines(experiment(Path(raced.path).parent, search=None).study, raced.store) == []


def test_halving_ends_with_one_trajectory(tmp_path: Path) -> None:
    found = run(experiment(tmp_path, **{**SMALL, "search": {"mode": "halve"}}))
    assert len({one.first.trajectory for one in found.survivors}) == 1
    assert len(found.selection.ran) < len(found.seeds)


def test_a_plan_says_what_is_expected_and_the_worst(tmp_path: Path) -> None:
    opened = experiment(tmp_path, **SMALL)
    planned = api.plan(opened).search
    assert planned is not None
    assert 0 < planned.expected <= planned.worst == api.plan(opened).trainings.distinct < planned.unshared
    assert planned.drawn_from.startswith("assumed")
    assert api.plan(experiment(tmp_path, search=None)).search is None


class TestPrior:
    """Variances are known from an earlier sweep, if it is of the same models and data."""

    @pytest.fixture
    def before(self, tmp_path: Path) -> api.Opened:
        from time_ray.tracking.history import owners

        opened = experiment(tmp_path, **{**SMALL, "name": "before", "seed": [7, 8, 9], "search": None})
        owners(opened.study, opened.store)
        record(opened.store, opened.study.cells, scorer)
        return opened

    def test_it_is_used_named_and_stays_as_it_was_at_the_start(self, tmp_path: Path, before: api.Opened) -> None:
        opened = experiment(tmp_path, **SMALL)
        (known,) = known_before(opened.study, opened.files)["known"]
        assert (known["sweep"], known["of"], known["seeds"]) == ("before", ["mini-tiny", "2 steps"], 3)
        assert known["cells"] == len(candidates(before.study))
        assert {tuple(pair["inits"]) for pair in known["pairs"]} >= {("ft", "ft"), ("ft", "ema")}
        planned = api.plan(opened).search
        assert planned is not None
        assert planned.drawn_from == "cells of the same inits in an earlier sweep"
        found = run(opened)
        assert found.selection.removed[0].seeds == 1  # one seed is enough, as variances are known
        text = f"variances are known from sweep before (mini-tiny 2 steps: {known['cells']} cells, 3 seeds)"
        assert text in search_lines(opened.study, opened.store)
        later = experiment(tmp_path, **{**SMALL, "name": "later", "seed": list(range(10, 16)), "search": None})
        record(later.store, later.study.cells, scorer)
        assert known_before(opened.study, opened.files)["known"] == [known]

    @pytest.mark.parametrize(
        "other", [{"training": {"lr": 0.5}}, {"stream": {"tasks": 1}}, {"budget": "3 steps"}, {"model": "mini-base"}]
    )
    def test_what_is_not_comparable_tells_nothing(
        self, tmp_path: Path, before: api.Opened, other: dict[str, object]
    ) -> None:
        assert before.study.cells
        opened = experiment(tmp_path, **{**SMALL, **other})
        assert known_before(opened.study, opened.files) == {"known": []}
