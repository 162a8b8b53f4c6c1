"""Cells ranked over their seeds, by any metric of the table."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest
from toy_grid import setting, strategies, technique

from time_ray.core.errors import UserError
from time_ray.core.grid import Cell, grid
from time_ray.core.metrics import METRICS, AccuracyHistory
from time_ray.ranking import best_seed, columns, rank
from time_ray.results import CellResult, TaskResult

OLD = ("init", "deploy", "technique", "model", "budget", "seeds", "ka", "zs", "gm", "ka_sd", "zs_sd", "gm_sd", "pareto")


def result(cell: Cell, learned: Sequence[float], kept: Sequence[float | None]) -> CellResult:
    """A finished cell with these accuracies after tasks 0, 1, ...; None: nothing is held out."""
    accuracies = [{"toys": a, **({} if z is None else {"held out": z})} for a, z in zip(learned, kept, strict=True)]
    history = AccuracyHistory(accuracies, ("toys",), () if kept[0] is None else ("held out",))
    return CellResult(cell, tuple(TaskResult(task, history, {}) for task in range(len(learned))), "key", {})


def cells(num_seeds: int = 1) -> tuple[Cell, ...]:
    """ft and ema, each with every seed; streams of one task."""
    where = [setting(1, seed=seed) for seed in range(num_seeds)]
    found = grid(strategies(["ft", "ema"]), strategies(["ft"]), [technique()], where)
    return tuple(sorted(found, key=lambda cell: cell.init.name))


def test_the_lead_depends_on_the_metric_and_its_direction() -> None:
    ema, ft = cells()
    results = [result(ema, [30, 40], [50, 50]), result(ft, [70, 60], [90, 20])]
    leaders = {name: rank(results, name)[0].init for name in METRICS}
    assert leaders == {"ka": "ft", "zs": "ema", "gm": "ema", "forgetting": "ema"}
    assert [row.means["forgetting"] for row in rank(results, "forgetting")] == [-10, 10]


def test_means_and_deviations_are_over_seeds() -> None:
    (row,) = rank([result(cell, [0, ka], [0, 25]) for cell, ka in zip(cells(3)[:3], (36, 49, 64), strict=True)])
    assert row.seeds == 3
    assert row.means == pytest.approx({"ka": 149 / 3, "zs": 25, "gm": 35, "forgetting": -149 / 3})
    of_ka = statistics.stdev([36, 49, 64])
    assert row.sds == pytest.approx({"ka": of_ka, "zs": 0, "gm": 5, "forgetting": of_ka})


@pytest.mark.parametrize(("by", "seed"), [("gm", 2), ("ka", 2), ("zs", 0), ("forgetting", 1)])
def test_the_best_seed_is_best_by_the_metric(by: str, seed: int) -> None:
    courses = [([10, 20], [0, 90]), ([10, 40], [0, 10]), ([80, 90], [0, 80])]
    (row,) = rank([result(cell, *course) for cell, course in zip(cells(3)[:3], courses, strict=True)], by)
    assert best_seed(row, by).cell.setting.seed == seed


@pytest.mark.parametrize("by", ["gm", "zs", "ka"])
def test_without_held_out_data_ka_ranks(by: str) -> None:
    ema, ft = cells()
    rows = rank([result(ema, [0, 40], [None, None]), result(ft, [0, 60], [None, None])], by)
    assert [(row.init, row.means["gm"]) for row in rows] == [("ft", None), ("ema", None)]
    assert best_seed(rows[0], by).cell is ft


def test_a_cell_that_is_not_finished_is_not_ranked() -> None:
    ema, ft = cells()
    unfinished = CellResult(ema, result(ema, [0, 99], [0, 99]).rows[:1], "key", {})
    assert [row.init for row in rank([unfinished, result(ft, [0, 1], [0, 1])])] == ["ft"]


def test_a_new_metric_moves_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    assert columns() == (*OLD, "forgetting", "forgetting_sd")
    best = replace(METRICS["ka"], name="top", title="top", compute=lambda history: max(history.accuracies[-1].values()))
    monkeypatch.setitem(METRICS, "top", best)
    assert columns() == (*OLD, "forgetting", "forgetting_sd", "top", "top_sd")
    (row,) = rank([result(cells()[0], [0, 40], [0, 50])], "top")
    assert tuple(row.as_row()) == columns()
    assert row.as_row()["top"] == 50


def test_a_metric_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="no such metric 'ak'; known: ka, zs, gm, forgetting"):
        rank([], "ak")
