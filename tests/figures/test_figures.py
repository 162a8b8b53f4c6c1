"""Figures of sweeps and cells: which there are, what they say, whatever names and results are like."""

import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pytest
from made_results import finished, unfinished
from toy_grid import setting, strategies, technique

from time_ray.analysis.axis_importance import AxisImportance, axis_importance
from time_ray.analysis.costs import costs
from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import Ranking, ranking
from time_ray.core.criterion import Criterion
from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.recipe import ResolvedTechnique
from time_ray.core.scoring import Scoring
from time_ray.core.strategies import read
from time_ray.figures import artifacts
from time_ray.figures.datasets import arrival, datasets_by_task
from time_ray.figures.heat_map import heat_map
from time_ray.figures.numbers import numeric_axes
from time_ray.figures.places import places
from time_ray.figures.series import over_lengths, over_tasks
from time_ray.figures.style import drawn, short
from time_ray.results import CellResult
from time_ray.store.files import Files
from time_ray.store.store import Store

OF_SWEEP = {
    "heat_map.svg",
    "heat_map_ka.svg",
    "heat_map_zs.svg",
    "ka_zs.svg",
    "tasks.svg",
    "lengths.svg",
    "importance.svg",
    "numbers.svg",
    "cost.svg",
}
HOSTILE = ("$x_1^2$", "a <b> & \"c\" 'd'", "two\nlines\tand\x00more", "😀 数据", "_hidden", "long " * 40)


def scores(cell: Cell, task: int, length: float) -> dict[str, float]:
    """Initialised from the running merge is best; each seed is a little better than the one before it."""
    plus = {"zs": 4.0, "ft": 0.0, "ema": 8.0, "all": 6.0}[cell.init.name] + cell.setting.seed
    plus += {"ft": 0.0, "ema": 3.0, "all": 1.5}[cell.deploy.name] + 2.0 * float(cell.technique.params.get("keep", 0))
    learned = dict.fromkeys(cell.setting.adaptation, 20 + task * length * (5 + 0.2 * plus))
    return learned | dict.fromkeys(cell.setting.evaluation, 70 + plus * task / 5 - task * length**2 * 4)


def settings(seeds: int = 3, lengths: Sequence[float] = (0.5, 0.75), tasks: int = 3) -> list[Setting]:
    return [setting(tasks, seed=seed, scoring=Scoring(lengths=tuple(lengths))) for seed in range(seeds)]


def cells(*of: Setting, keeps: Sequence[float] = (0.2, 0.5)) -> tuple[Cell, ...]:
    techniques = [ties(keep) for keep in keeps]
    return grid(strategies(("zs", "ft", "ema")), strategies(("ft", "all")), techniques, of or settings())


def ties(keep: float) -> ResolvedTechnique:
    return replace(technique("ties", keep=keep), label=f"ties(keep={keep})")


def ranked(results: Sequence[CellResult], folder: Path) -> Ranking:
    return ranking(results, Halves(Store(Files(str(folder)))))


def shares(results: Sequence[CellResult], folder: Path) -> AxisImportance:
    return axis_importance(results, Halves(Store(Files(str(folder)))), Criterion(), to_finish="")


def words(svg: bytes) -> list[str]:
    """All that an image says: it is XML."""
    root = ET.fromstring(svg)  # noqa: S314 we wrote it
    return [text for one in root.iter() if one.tag.endswith("}text") for text in one.itertext()]


def test_a_sweep_has_every_figure_and_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    results = finished(cells(), scores)
    found = dict(artifacts.of_sweep(results, ranked(results, tmp_path), shares(results, tmp_path), costs(results)))
    assert found.keys() == OF_SWEEP
    again = finished(cells(), scores)
    with mpl.rc_context({"axes.grid": True, "font.size": 30, "svg.fonttype": "path"}):  # as people have it
        others = dict(artifacts.of_sweep(again, ranked(again, tmp_path), shares(again, tmp_path), costs(again)))
    assert found == others


def test_what_is_not_in_the_grid_is_blank(tmp_path: Path) -> None:
    results = [one for one in finished(cells(*settings(lengths=())), scores) if not one.cell.name.startswith("ft/ft")]
    svg = drawn(lambda: heat_map(results, ranked(results, tmp_path), "gm"))
    assert svg is not None
    assert "★ leader; blank: not in the grid" in " ".join(words(svg)).replace("; ○ may be the best, too", "")
    assert b"url(#h" not in svg


def test_the_heat_map_marks_the_leader_what_is_tied_and_what_lacks(tmp_path: Path) -> None:
    results = finished(cells(*settings(lengths=())), scores)
    last = len(results) - 1
    alone = [number for number, result in enumerate(results) if result.cell.name.startswith("ft/ft")]
    gone = [unfinished(one) if number in alone else one for number, one in enumerate(results)]
    gone[last] = unfinished(results[last], rows=3)
    found = ranked(gone, tmp_path)
    svg = drawn(lambda: heat_map(gone, found, "gm"))
    assert svg is not None
    said = words(svg)
    assert sum("★" in word for word in said) == 2  # in its cell, and in the key
    assert sum("2 of 3 seeds" in word for word in said) == 1
    assert f"{found.leader.mean_of('gm'):.1f} ★" in said
    assert b"url(#h" in svg  # hatched
    values = [word for word in said if re.match(r"\d+\.\d( [★○])?$", word)]
    assert len(values) >= 2 * 6 - 2  # a panel a technique; ft/ft is not finished in either


def test_many_panels_are_cut_and_the_title_says_so(tmp_path: Path) -> None:
    few = settings(1, (), tasks=1)
    results = finished(cells(*few, keeps=[number / 20 for number in range(1, 16)]), scores)
    svg = drawn(lambda: heat_map(results, ranked(results, tmp_path), "gm"))
    assert svg is not None
    assert any("12 best of 15 panels" in word for word in words(svg))


def test_without_held_out_data_there_is_no_zs_and_one_cell_has_what_makes_sense(tmp_path: Path) -> None:
    bare = replace(setting(1), evaluation=())
    (one,) = finished(grid([read("ft")], [read("ft")], [technique()], [bare]), scores)
    names = [name for name, _ in artifacts.of_sweep([one], ranked([one], tmp_path), None, costs([one]))]
    assert names == ["heat_map.svg", "tasks.svg", "cost.svg"]
    assert [name for name, _ in artifacts.of_cell(one)] == ["tasks.svg", "datasets.svg"]
    tasks = dict(artifacts.of_cell(one))["tasks.svg"]
    assert "KA" in words(tasks)
    assert "ZS" not in words(tasks)


def test_cells_that_are_not_finished_have_figures_of_the_rows_they_have(tmp_path: Path) -> None:
    results = finished(cells(), scores)
    some = unfinished(results[0], rows=2)
    assert [name for name, _ in artifacts.of_cell(some)] == ["tasks.svg", "datasets.svg"]
    assert [name for name, _ in artifacts.of_cell(unfinished(results[0], rows=1))] == ["datasets.svg"]
    assert list(artifacts.of_cell(unfinished(results[0]))) == []
    nothing = [unfinished(one) for one in results]
    assert list(artifacts.of_sweep(nothing, ranked(nothing, tmp_path), None, costs(nothing))) == []
    assert [name for name, _ in artifacts.of_summary([some, results[1]])] == ["tasks.svg", "datasets.svg"]


def test_names_of_any_letters_are_harmless(tmp_path: Path) -> None:
    hostile = [replace(one, adaptation=HOSTILE, evaluation=("held $out",)) for one in settings(2)]
    results = finished(cells(*hostile, keeps=[0.2]), scores)
    found = dict(artifacts.of_summary(results[:2])) | dict(
        artifacts.of_sweep(results, ranked(results, tmp_path), None, costs(results))
    )
    said = words(found["datasets.svg"])
    for name in HOSTILE:
        assert short(name) in said
    assert all(words(svg) for svg in found.values())


def test_short_names_keep_both_ends() -> None:
    assert short("mini:chess") == "mini:chess"
    assert short("a\nb\x00c\udc80") == "a b c"
    one, other = short("a" * 50 + "1", 20), short("a" * 50 + "2", 20)
    assert one != other
    assert len(one) <= 20


def test_series_are_means_over_seeds() -> None:
    results = [one for one in finished(cells(), scores) if one.cell.name.startswith("zs/all ties(")][:3]
    series = over_tasks(results, "ka")
    assert series is not None
    assert series.at == (0, 1, 2, 3)
    assert series.means[-1] == pytest.approx(sum(one.final["ka"] or 0 for one in results) / 3)
    assert len(series.sds) == 4
    moved = over_lengths(results, "gm")
    assert moved is not None
    assert moved.at == (0.0, 0.5, 0.75, 1.0)
    assert over_lengths([replace(one, at_lengths={}) for one in results], "gm") is None


def test_numbers_that_vary_are_axes_and_parameters_count_where_they_merge(tmp_path: Path) -> None:
    inits = [read("ft"), *(read({"name": "ema", "weight": weight}) for weight in (0.2, 0.8))]
    made = grid(inits, strategies(("ft", "all")), [ties(0.2), ties(0.5)], settings(1))
    results = finished(made, scores)
    found = numeric_axes(places(results, ranked(results, tmp_path)), "gm")
    assert {"init ema: weight", "ties: keep"} == found.keys()
    assert len(found["init ema: weight"]) == 8
    assert len(found["ties: keep"]) == 10  # all but ft/ft


def test_arrivals_are_the_first_tasks_of_datasets() -> None:
    one = setting(3)
    assert arrival(one, "toys") == 1
    assert arrival(one, "held out") is None
    svg = drawn(lambda: datasets_by_task(finished(cells(one), scores)[:1]))
    assert svg is not None
    assert any("first classes arrive" in word for word in words(svg))


def test_figures_are_drawn_by_several_threads_and_leave_settings_as_they_were(tmp_path: Path) -> None:
    one = finished(cells(), scores)[0]
    before = dict(mpl.rcParams)
    alone = list(artifacts.of_cell(one))
    found: list[list[tuple[str, bytes]]] = []
    threads = [threading.Thread(target=lambda: found.append(list(artifacts.of_cell(one)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3
    assert dict(mpl.rcParams) == before
