"""Which cells may be the best: by any metric, over their seeds, from one half of the test images to the other."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kept_outcomes import keep
from toy_grid import setting, strategies, technique

from time_ray.analysis import resampling
from time_ray.analysis.contenders import comparable, contenders
from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import DECISION, Ranking, columns, ranking
from time_ray.core.criterion import Criterion, read_floor, value
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell, grid
from time_ray.core.metrics import METRICS, AccuracyHistory
from time_ray.core.scoring import Scoring
from time_ray.core.strategies import read
from time_ray.report.best import verdict
from time_ray.results import CellResult, TaskResult, read_results
from time_ray.store.files import Files
from time_ray.store.store import Store

OLD = ("init", "deploy", "technique", "model", "budget", "seeds", "ka", "zs", "gm", "ka_sd", "zs_sd", "gm_sd", "pareto")
LATER = tuple(f"{name}{end}" for name in ("forgetting", "acc", "bwt", "fwt") for end in ("", "_sd"))


def result(cell: Cell, learned: Sequence[float], kept: Sequence[float | None]) -> CellResult:
    """A finished cell with these accuracies after tasks 0, 1, ...; None: nothing is held out. Without outcomes."""
    accuracies = [{"toys": a, **({} if z is None else {"held out": z})} for a, z in zip(learned, kept, strict=True)]
    history = AccuracyHistory(accuracies, ("toys",), () if kept[0] is None else ("held out",))
    return CellResult(cell, tuple(TaskResult(task, history, {}) for task in range(len(learned))), "key", {})


def cells(num_seeds: int = 1, num_tasks: int = 1) -> tuple[Cell, ...]:
    """ft and ema, each with every seed."""
    where = [setting(num_tasks, seed=seed) for seed in range(num_seeds)]
    found = grid(strategies(["ft", "ema"]), strategies(["ft"]), [technique()], where)
    return tuple(sorted(found, key=lambda cell: cell.init.name))


@pytest.fixture
def nowhere(tmp_path: Path) -> Halves:
    """A store without outcomes."""
    return Halves(Store(Files(str(tmp_path))))


def inits(ranked: Ranking) -> list[str]:
    return [row.contender.axes["init"] for row in ranked.rows]


def test_the_lead_depends_on_the_metric_and_its_direction(nowhere: Halves) -> None:
    ema, ft = cells()
    results = [result(ema, [30, 40], [50, 50]), result(ft, [70, 60], [90, 20])]
    leaders = {
        name: inits(ranking(results, nowhere, Criterion(by=name)))[0] for name in ("ka", "zs", "gm", "forgetting")
    }
    assert leaders == {"ka": "ft", "zs": "ema", "gm": "ema", "forgetting": "ema"}
    ranked = ranking(results, nowhere, Criterion(by="forgetting"))
    assert [row.value for row in ranked.rows] == [-10, 10]
    assert not ranked.halves


def test_means_and_deviations_are_over_seeds(nowhere: Halves) -> None:
    courses = [result(cell, [0, ka], [0, 25]) for cell, ka in zip(cells(3)[:3], (36, 49, 64), strict=True)]
    (row,) = ranking(courses, nowhere).rows
    assert row.seeds == (0, 1, 2)
    of_paper = {name: row.means[name] for name in ("ka", "zs", "gm", "forgetting")}
    assert of_paper == pytest.approx({"ka": 149 / 3, "zs": 25, "gm": 35, "forgetting": -149 / 3})
    assert {name: row.sds[name] for name in ("ka", "zs", "gm")} == pytest.approx(
        {"ka": statistics.stdev([36, 49, 64]), "zs": 0, "gm": 5}
    )
    assert row.means["bwt"] is None


@pytest.mark.parametrize(("by", "seed"), [("gm", 0), ("ka", 1), ("zs", 2), ("forgetting", 0)])
def test_the_median_seed_is_registered_and_never_the_best(by: str, seed: int, nowhere: Halves) -> None:
    courses = [([10, 20], [0, 90]), ([10, 40], [0, 10]), ([80, 90], [0, 80])]
    results = [result(cell, *course) for cell, course in zip(cells(3)[:3], courses, strict=True)]
    ranked = ranking(results, nowhere, Criterion(by=by))
    values = [METRICS[by].loss(one.final[by]) for one in results]
    assert values[ranked.seed] == statistics.median(values)
    assert ranked.winner is results[ranked.seed]
    assert ranking(results, nowhere, Criterion(by=by, seed=seed)).winner is results[seed]


def test_a_seed_that_no_cell_has_is_refused(nowhere: Halves) -> None:
    with pytest.raises(UserError, match="--seed 7: no such seed; cells have 0"):
        ranking([result(cells()[0], [0, 1], [0, 1])], nowhere, Criterion(seed=7))


@pytest.mark.parametrize("by", ["gm", "zs", "ka"])
def test_without_held_out_data_ka_ranks(by: str, nowhere: Halves) -> None:
    ema, ft = cells()
    ranked = ranking([result(ema, [0, 40], [None, None]), result(ft, [0, 60], [None, None])], nowhere, Criterion(by=by))
    assert inits(ranked) == ["ft", "ema"]
    assert ranked.metric.name == "ka"
    assert ranked.winner.cell is ft


def test_a_cell_that_is_not_finished_is_not_ranked(nowhere: Halves) -> None:
    ema, ft = cells()
    unfinished = CellResult(ema, result(ema, [0, 99], [0, 99]).rows[:1], "key", {})
    ranked = ranking([unfinished, result(ft, [0, 1], [0, 1])], nowhere)
    assert inits(ranked) == ["ft"]
    assert ranked.num_unfinished == 1
    assert ranking([unfinished], nowhere).rows == ()


def test_a_new_metric_moves_no_column(monkeypatch: pytest.MonkeyPatch, nowhere: Halves) -> None:
    assert columns() == (*OLD, *LATER, *DECISION)
    best = replace(METRICS["ka"], name="top", title="top", compute=lambda history: max(history.accuracies[-1].values()))
    monkeypatch.setitem(METRICS, "top", best)
    assert columns() == (*OLD, *LATER, "top", "top_sd", *DECISION)
    (row,) = ranking([result(cells()[0], [0, 40], [0, 50])], nowhere, Criterion(by="top")).rows
    assert tuple(row.as_row()) == columns()
    assert row.as_row()["top"] == 50


def test_a_metric_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="no such metric 'ak'; known: ka, zs, gm, forgetting"):
        Criterion(by="ak")


def test_a_metric_that_is_not_defined_ranks_nothing(nowhere: Halves) -> None:
    with pytest.raises(UserError, match="--by bwt: it is not defined for these cells"):
        ranking([result(cells()[0], [0, 40], [0, 50])], nowhere, Criterion(by="bwt"))


def test_over_tasks(nowhere: Halves) -> None:
    (cell, *_) = cells(num_tasks=3)
    (row,) = ranking([result(cell, [10, 20, 60, 40], [1] * 4)], nowhere, Criterion(by="ka", over="mean")).rows
    assert row.value == pytest.approx(40)
    (row,) = ranking([result(cell, [10, 20, 60, 40], [1] * 4)], nowhere, Criterion(by="ka", over="area")).rows
    assert row.value == pytest.approx((15 + 40 + 50) / 3)


# Floors


@pytest.mark.parametrize(
    ("text", "value", "base", "holds"),
    [
        ("zs>=40", 40.0, None, True),
        ("zs >= 40.5", 40.0, None, False),
        ("zs>=0.95*base", 57.0, 60.0, True),
        ("zs>=0.95 * base", 56.9, 60.0, False),
        ("zs>=base", 60.0, 60.0, True),
        ("forgetting<=3", 2.0, None, True),
        ("forgetting<=3", 4.0, None, False),
        ("zs>=40", None, None, False),
    ],
)
def test_a_floor_is_kept_or_not(text: str, value: float | None, base: float | None, holds: bool) -> None:
    assert read_floor(text).holds(value, base) == holds


@pytest.mark.parametrize("text", ["", "zs", "zs>=", "zs>40", ">=4", "zs>=inf", "zs>=1e", "zs>=a*base", "zs>=4*bass"])
def test_what_is_no_floor_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no floor; write one as in zs>=40"):
        read_floor(text)


def test_a_floor_of_no_metric_is_refused() -> None:
    with pytest.raises(UserError, match="no such metric 'xs'"):
        read_floor("xs>=4")


def test_a_floor_leaves_cells_out(nowhere: Halves) -> None:
    ema, ft = cells()
    results = [result(ema, [30, 40], [50, 48]), result(ft, [30, 90], [50, 40])]
    assert inits(ranking(results, nowhere, Criterion(by="ka"))) == ["ft", "ema"]
    ranked = ranking(results, nowhere, Criterion(by="ka", floor=read_floor("zs>=0.95*base")))
    assert inits(ranked) == ["ema"]
    assert [one.axes["init"] for one in ranked.below_floor] == ["ft"]
    with pytest.raises(UserError, match="--floor zs>=99: no cell keeps it"):
        ranking(results, nowhere, Criterion(floor=read_floor("zs>=99")))


# Seeds


def test_cells_without_every_seed_are_not_compared() -> None:
    ema, ft = cells(3)[:3], cells(3)[3:]
    zs = grid(strategies(["zs"]), strategies(["ft"]), [technique()], [cell.setting for cell in ft])
    results = [result(cell, [0, 1], [0, 1]) for cell in (*ema, *ft, *zs[:2])]
    found = comparable(contenders(results))
    assert [one.axes["init"] for one in found.contenders] == ["ema", "ft"]
    assert found.seeds == (0, 1, 2)
    assert [one.axes["init"] for one in found.lacking] == ["zs"]


def test_where_no_two_have_every_seed_those_they_share_count() -> None:
    ema, ft = cells(3)[:3], cells(3)[3:]
    results = [result(cell, [0, 1], [0, 1]) for cell in (*ema, *ft[1:])]
    found = comparable(contenders(results))
    assert found.seeds == (1, 2)
    assert not found.lacking


def test_one_seed_supports_no_ranking(nowhere: Halves) -> None:
    ranked = ranking([result(cell, [0, 40 + n], [0, 40]) for n, cell in enumerate(cells())], nowhere)
    assert [row.tied for row in ranked.rows] == [None, None]
    assert verdict(ranked)[0].startswith("one seed: order shown, no ranking supported")


def test_cells_that_serve_the_same_models_are_one(nowhere: Halves) -> None:
    techniques = [technique(), technique("sum", weighted=False, alone=False)]
    found = grid(strategies(["ft"]), strategies(["ft", "all"]), techniques, [setting(2)])
    halves = nowhere
    results = [replace(result(cell, [0, 1, 2], [0, 1, 1]), rows=keyed(cell)) for cell in found]
    ranked = ranking(results, halves)
    assert sorted((row.contender.axes["deploy"], row.contender.axes["technique"]) for row in ranked.rows) == [
        ("all", "blend"),
        ("all", "sum"),
        ("ft", "any"),
    ]


def keyed(cell: Cell) -> tuple[TaskResult, ...]:
    """Rows with the keys of their scores."""
    rows = result(cell, [0, 1, 2], [0, 1, 1]).rows
    served = [cell.setting.base, *(step.deployed for step in cell.walk())]
    return tuple(
        replace(row, scores_key=cell.setting.scores_key(recipe)) for row, recipe in zip(rows, served, strict=True)
    )


# Halves and lengths, from outcomes in a store


def chances(cell: Cell, task: int, length: float) -> Mapping[str, float]:
    """ft learns more and forgets more; half-way back it is nearly as good as ema."""
    gain = {"ft": 0.4, "ema": 0.3}[cell.init.name] * task / len(cell.setting.trainings)
    loss = {"ft": 0.4, "ema": 0.1}[cell.init.name] * task / len(cell.setting.trainings)
    noise = 0.01 * (cell.setting.seed - 1)
    return {"toys": 0.3 + noise + gain * min(1.0, 1.5 * length), "held out": 0.8 - noise - loss * length**2}


def lengthy(num_seeds: int = 3, lengths: tuple[float, ...] = (0.5, 0.75)) -> tuple[Cell, ...]:
    where = [setting(2, seed=seed, scoring=Scoring(lengths=lengths)) for seed in range(num_seeds)]
    return grid(strategies(["ft", "ema"]), strategies(["ft"]), [technique()], where)


def ranked_in(tmp_path: Path, found: Sequence[Cell], criterion: Criterion | None = None, **options: bool) -> Ranking:
    store = keep(str(tmp_path), found, chances, **options)
    return ranking(read_results(found, store), Halves(store), criterion)


def test_each_cell_is_compared_at_its_best_length(tmp_path: Path) -> None:
    ranked = ranked_in(tmp_path, lengthy())
    assert ranked.halves
    assert [(row.contender.axes["init"], row.length) for row in ranked.rows] == [("ema", 0.75), ("ft", 0.5)]
    assert [row.baseline for row in ranked.rows] == ["", "patched ft/ft"]
    as_served = ranked_in(tmp_path, lengthy(), Criterion(lengths="one"))
    assert [(row.contender.axes["init"], row.length) for row in as_served.rows] == [("ema", 1.0), ("ft", 1.0)]


def test_what_is_reported_was_not_selected_on(tmp_path: Path) -> None:
    found = lengthy()
    store = keep(str(tmp_path), found, chances)
    halves, results = Halves(store), read_results(found, store)
    for one in results:
        select, report, everything = (halves.history(one, part).accuracies[-1] for part in ("select", "report", "all"))
        images = halves.images.test_images(one.cell.setting)
        assert images is not None
        for question, bits in images.select.items():
            counts = int(bits.sum()), int((~bits).sum())
            whole = (select[question.dataset] * counts[0] + report[question.dataset] * counts[1]) / sum(counts)
            assert whole == pytest.approx(everything[question.dataset])
            assert min(counts) > 150
    ranked = ranking(results, halves)
    leader = ranked.leader
    values = [halves.value(one, "gm", "report", length=leader.length) for one in leader.results]
    assert leader.by_seed == pytest.approx(values)
    assert leader.value == pytest.approx(statistics.fmean(values))
    assert leader.selected_on != leader.value


def test_seeds_and_images_say_how_sure_it_is(tmp_path: Path) -> None:
    ranked = ranked_in(tmp_path, lengthy(), Criterion(lengths="one"))
    leader, other = ranked.rows
    assert leader.tied
    assert not other.tied
    assert leader.lower is not None
    assert leader.lower <= 0 <= leader.upper
    assert other.upper == 0
    assert other.lower <= other.value - leader.value
    assert leader.p_best == 1
    assert not other.practically_equal
    close = ranked_in(tmp_path, lengthy(), Criterion(lengths="one", epsilon=50))
    assert all(row.practically_equal for row in close.rows)


def test_named_baselines_are_there(tmp_path: Path) -> None:
    found = [*lengthy(), *multitask(lengthy())]
    store = keep(str(tmp_path), found[: len(lengthy())], chances)
    keep(str(tmp_path), found[len(lengthy()) :], lambda _, task, _length: {"toys": 0.2 + 0.7 * task, "held out": 0.7})
    ranked = ranking(read_results(found, store), Halves(store))
    by_name = {row.baseline: row for row in ranked.baselines}
    assert by_name.keys() == {"base", "ft/ft", "multitask"}
    assert by_name["multitask"].means["ka"] == pytest.approx(90)
    assert by_name["base"].means["ka"] == pytest.approx(29)  # of the first seed: all share the base's scores
    assert by_name["ft/ft"].length == 1
    assert not any(row.contender.axes["init"] == "(multitask)" for row in ranked.rows)


def multitask(found: Sequence[Cell]) -> list[Cell]:
    where = {cell.setting.key: cell.setting for cell in found}.values()
    once = [
        replace(setting, trainings=(replace(setting.trainings[0], steps=99),), scoring=Scoring()) for setting in where
    ]
    return [Cell(read("zs"), read("ft"), technique(), setting, multitask=True) for setting in once]


def test_scores_without_outcomes_have_no_halves_and_say_so(tmp_path: Path) -> None:
    ranked = ranked_in(tmp_path, lengthy(), outcomes=False)
    assert not ranked.halves
    assert ranked.leader.selected_on == ranked.leader.value
    assert "kept without outcomes" in verdict(ranked)[-1]
    assert [row.length for row in ranked.rows] == [0.75, 0.5]


def test_the_median_is_of_the_length_that_counts(tmp_path: Path) -> None:
    ranked = ranked_in(tmp_path, lengthy())
    assert sorted(ranked.leader.by_seed)[1] == ranked.leader.by_seed[ranked.seeds.index(ranked.seed)]


@pytest.mark.parametrize("by", ["ka", "zs", "gm"])
def test_images_drawn_anew_are_scored_as_all_others(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn once each, they give what is reported."""
    found = lengthy()
    store = keep(str(tmp_path), found, chances)
    halves, results = Halves(store), read_results(found, store)
    compared = comparable(contenders(results))
    candidates = [(contender, 0.5) for contender in compared.contenders]
    monkeypatch.setattr(resampling, "_times", lambda _, bits: np.ones(bits.shape[1], dtype=np.float32))
    drawn = resampling._images(candidates, compared.seeds, Criterion(by=by), halves).draw(np.random.default_rng(0))
    wanted = [
        [halves.value(contender.results[seed], by, "report", length=0.5) for seed in compared.seeds]
        for contender in compared.contenders
    ]
    assert drawn == pytest.approx(np.array(wanted), rel=1e-5)


def test_a_metric_that_begins_later_is_averaged_from_there_on() -> None:
    by_task = [[10.0, 20.0, 30.0], [70.0, 24.0, 33.0], [60.0, 80.0, 36.0], [40.0, 90.0, 50.0]]
    history = AccuracyHistory([{"a": 0.0}] * 4, ["a"], [], by_task)
    assert value(history, "bwt", "mean") == pytest.approx((-10 + -10) / 2)
    assert value(history.until(1), "bwt", "mean") is None


@pytest.mark.parametrize(("seed", "why"), [(None, ", the median"), (0, ""), (2, "")])
def test_a_seed_that_is_named_is_not_called_the_median(seed: int | None, why: str, tmp_path: Path) -> None:
    ranked = ranked_in(tmp_path, lengthy(), Criterion(seed=seed))
    assert f"--register and export take seed {1 if seed is None else seed}{why}" in verdict(ranked)
