"""Cells against cells: paired by seed and by all that is not named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scored_store import IMAGES, experiment, record
from toy_grid import setting, strategies, technique

from time_ray import api
from time_ray.analysis.comparison import Comparison, compare
from time_ray.analysis.halves import Halves
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell, grid
from time_ray.core.paired import mcnemar
from time_ray.core.scoring import Scoring
from time_ray.core.selection import read_selection
from time_ray.results import read_results
from time_ray.store.files import Files
from time_ray.store.store import Store

SEEDS = 3
GAINS = {"zs": 0, "ft": 4, "ema": 10, "all": 7}


def percents(cell: Cell, task: int, length: float) -> dict[str, float | tuple[float, float]]:
    """What init and deploy gain, in each seed one more; only the accuracy on toys depends on them."""
    seed = cell.setting.seed
    gained = GAINS[cell.init.name] + GAINS[cell.deploy.name]
    best = (6.0, 2.0) if length == 0.5 and cell.deploy.name == "ft" else (0.0, 0.0)
    bonus = 3 if cell.technique.name == "ties" and cell.deploy.name in ("ema", "all") else 0
    toys = 40 + (0 if task == 0 else gained + seed * (cell.init.name == "ema") + bonus)
    return {"toys": (toys + best[0], toys + best[1]), "held out": 64}


def results_of(store: Store, *inits: str, lengths: tuple[float, ...] = (), left_out: str = "") -> list[Any]:
    settings = [setting(2, seed=seed, scoring=Scoring(lengths=lengths)) for seed in range(SEEDS)]
    cells = grid(strategies(inits), strategies(["ft", "ema"]), [technique(), technique("ties")], settings)
    record(store, [cell for cell in cells if not left_out or left_out not in cell.name], percents)
    return read_results(cells, store)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Files(str(tmp_path)))


def compared(results: list[Any], store: Store, a: str, b: str, **how: Any) -> Comparison:
    criterion = Criterion(**{"by": "ka", **how})
    return compare(results, Halves(store), read_selection(a, "A"), read_selection(b, "B"), criterion)


def test_two_cells_are_paired_by_seed(store: Store) -> None:
    results = results_of(store, "ft", "ema")
    found = compared(results, store, "init=ema,deploy=ft,technique=blend", "init=ft,deploy=ft,technique=blend")
    assert found.difference.by_seed == (6, 7, 8)
    assert (found.difference.a, found.difference.b, found.difference.mean) == (55, 48, 7)
    assert found.difference.low is not None
    assert found.difference.low < 7 < found.difference.high  # type: ignore[operator]
    assert [(one.name, one.difference.mean) for one in found.datasets] == [("toys", 7), ("held out", 0)]
    assert found.images == (6 * 2 + 7 * 2 + 8 * 2, 0, mcnemar(42, 0))
    assert {one.name: one.difference.mean for one in found.tasks} == pytest.approx({"task 1": 7, "task 2": 7}, abs=1)
    assert sum((one.a - one.b) * one.images / 100 for one in found.classes) == pytest.approx(42)
    assert {one.images for one in found.classes if one.dataset == "toys"} == {SEEDS * IMAGES // 2}


def test_a_value_of_an_axis_is_compared_over_all_else_each_pair_of_models_once(store: Store) -> None:
    found = compared(results_of(store, "ft", "ema"), store, "init=ema", "init=ft")
    # deploy=ft serves the expert, whatever the technique of init=ft; that of init=ema has two trajectories
    assert {pair.name: pair.difference.by_seed for pair in found.pairs} == {
        "ft · blend": (6, 7, 8),
        "ft · ties": (6, 7, 8),
        "ema · blend": (6, 7, 8),
        "ema · ties": (6, 7, 8),
    }
    assert found.difference.by_seed == (6, 7, 8)
    assert found.images is None


def test_pairs_that_serve_the_same_models_do_not_dilute_a_technique(store: Store) -> None:
    found = compared(results_of(store, "zs", "ft"), store, "technique=ties", "technique=blend")
    assert (len(found.pairs), found.num_same) == (2, 2)
    assert found.difference.by_seed == (3, 3, 3)


def test_cells_at_their_best_lengths_are_measured_on_the_other_half(store: Store) -> None:
    results = results_of(store, "ft", lengths=(0.5, 1.5))
    a, b = "deploy=ft,technique=blend", "deploy=ema,technique=blend"
    found = compared(results, store, a, b)
    assert (found.lengths_a, found.lengths_b, found.halves) == ((0.5,), (1.0,), True)
    assert found.difference.by_seed == (-4, -4, -4)  # of -6 as served, 2 are gained where nothing was chosen
    assert found.images == (0, SEEDS * 4, mcnemar(0, 12))
    served = compared(results, store, a, b, lengths="one")
    assert (served.difference.by_seed, served.halves) == ((-6, -6, -6), False)
    assert served.images == (0, SEEDS * 12, mcnemar(0, 36))


def test_two_cells_of_many_borrow_the_variance_of_all(store: Store) -> None:
    results = results_of(store, "ft", "ema", "all")
    one = compared(results, store, "init=ema,deploy=ft,technique=blend", "init=ft,deploy=ft,technique=blend")
    alone = [r for r in results if r.cell.init.name in ("ft", "ema") and r.cell.deploy.name == "ft"]
    alone = [r for r in alone if r.cell.technique.name == "blend"]
    two = compared(alone, store, "init=ema", "init=ft")
    assert one.difference.high < two.difference.high  # type: ignore[operator]


def test_one_seed_has_no_interval(store: Store) -> None:
    results = [result for result in results_of(store, "ft", "ema") if result.cell.setting.seed == 0]
    found = compared(results, store, "init=ema", "init=ft")
    assert (found.difference.mean, found.difference.low, found.difference.high) == (6, None, None)


@pytest.mark.parametrize(
    ("a", "b", "fault"),
    [
        ("init=emma", "init=ft", "A init=emma: no such init 'emma'; did you mean 'ema'?"),
        ("init=ema,deploy=ema", "init=ft", "B init=ft: deploy=ft and deploy=ema both match, and have one partner"),
        ("init=ema,seed=0", "init=ft,seed=1", "no seed is finished in all pairs (A has 0; B has 1)"),
        ("technique=ties,deploy=ft,init=ft", "technique=blend,deploy=ft,init=ft", "serve the same models"),
        ("init=zs", "init=ft", "A init=zs: none of its 12 cells is finished; finish the sweep"),
        ("begin=ema", "init=ft", "A: no axis 'begin'"),
    ],
)
def test_what_cannot_be_paired_is_one_line(store: Store, a: str, b: str, fault: str) -> None:
    results = results_of(store, "zs", "ft", "ema", left_out="zs/")
    with pytest.raises(UserError) as error:
        compared(results, store, a, b)
    assert fault in str(error.value)
    assert len(error.value.faults) == 1


def test_what_is_not_finished_is_left_out(store: Store) -> None:
    found = compared(results_of(store, "ft", "ema", left_out="ema/ema ties"), store, "init=ema", "init=ft")
    assert (len(found.pairs), found.num_unfinished) == (3, SEEDS)


def test_compare_on_the_command_line(time_ray: Callable[..., Any], tmp_path: Path) -> None:
    opened = experiment(tmp_path, technique="average", stream={"tasks": 1})
    path = opened.path
    line = time_ray("compare", path, "init=ema", "init=ft")
    assert (line.status, line.out) == (2, "")
    assert line.err == f"error: {path}: no cell is finished; run: time-ray sweep {path}\n"
    scores = {"ft": {"chess": 40, "textures": 64}, "ema": {"chess": 46, "textures": 64}}
    record(opened.store, opened.study.cells, lambda cell, _, __: scores.get(cell.deploy.name, scores["ft"]))
    words = ("compare", path, "deploy=ema", "deploy=ft", "--by", "ka")
    done = time_ray(*words)
    assert done.status == 0
    first = next(row for row in done.out.splitlines() if "metric" in row)
    assert first.split() == ["metric", "ka", "46.00", "40.00", "+6.00", "+6.00", "…", "+6.00"]
    assert done.err.startswith("A - B: +6.00 KA")
    found = json.loads(time_ray(*words, "-f", "json").out)
    assert found == json.loads(json.dumps(api.compare(opened, "deploy=ema", "deploy=ft", "ka").as_dict()))
    rows = time_ray(*words, "-f", "csv").out.splitlines()
    assert rows[0] == "what,name,a,b,difference,low,high"
    assert rows[1] == "metric,ka,46.0,40.0,6.0,6.0,6.0"
    assert "| metric | ka | 46.00 | 40.00 | +6.00 |" in time_ray(*words, "-f", "markdown").out
    (fault,) = time_ray(*words[:-1], "kaa").err.splitlines()
    assert fault == "error: no such metric 'kaa'; did you mean 'ka'?"
