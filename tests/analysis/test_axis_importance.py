"""Shares of axes on whole grids: as served, and at best lengths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scored_store import experiment, record

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell

DEPLOY = {"ft": 0, "ema": 8, "all": 4}


def served(cell: Cell, task: int, length: float) -> dict[str, float | tuple[float, float]]:
    """As served deploy counts, and what ties adds to a merge; at half the length all techniques are equal.

    On the half that lengths are not chosen on, a moved model loses 2 less than it gains there.
    """
    ties = 4 if cell.technique.name == "ties" and cell.deploy.name != "ft" else 0
    toys = 40 + (DEPLOY[cell.deploy.name] + 2 * cell.setting.seed if task else 0)
    at_length = {1.0: (ties, ties), 0.5: (6, 4)}[length] if task else (0, 0)
    return {"chess": (toys + at_length[0], toys + at_length[1]), "textures": 64}


def swept(folder: Path, **changes: object) -> api.Opened:
    grid = {"init": ["zs", "ft"], "deploy": list(DEPLOY), "evaluation": {"lengths": 0.5}, **changes}
    opened = experiment(folder, **grid)
    record(opened.store, opened.study.cells, served)
    return opened


def test_shares_are_those_of_what_was_planted(tmp_path: Path) -> None:
    found = api.importance(swept(tmp_path), "ka")
    assert found.axes == {"init": ("zs", "ft"), "deploy": tuple(DEPLOY), "technique": ("average", "ties")}
    assert (found.seeds, found.halves) == ((0, 1), True)
    # means by deploy are 40, 50, 46, by technique 44 and 46 2/3, and ties adds to merges alone
    deploy, technique = 2 / 3 * (16 / 3 * 16 / 3 + 14 / 3 * 14 / 3 + 4 / 9) / 2, (4 / 3) ** 2
    both = 2 * (2 / 3) ** 2 / 3 + (4 / 3) ** 2 / 3
    total = deploy + technique + both
    shares = {share.axes: share.value for share in found.at_one.shares}
    assert found.at_one.variance == pytest.approx(total)
    assert shares["deploy",] == pytest.approx(deploy / total)
    assert shares["technique",] == pytest.approx(technique / total)
    assert shares["deploy", "technique"] == pytest.approx(both / total)
    assert shares["init",] == shares["init", "deploy"] == shares["init", "deploy", "technique"] == 0
    assert found.at_one.headline.value == pytest.approx(deploy / (technique + both))


def test_at_best_length_techniques_are_equal(tmp_path: Path) -> None:
    best = api.importance(swept(tmp_path), "ka").at_best
    assert best is not None
    assert {share.axes: share.value for share in best.shares if share.value} == {("deploy",): pytest.approx(1)}
    assert best.headline.value is None


def test_without_lengths_there_is_no_best_length(tmp_path: Path) -> None:
    assert api.importance(swept(tmp_path, evaluation={})).at_best is None
    other = tmp_path / "other"
    other.mkdir()
    assert api.importance(swept(other), over="mean").at_best is None


def test_a_grid_with_holes_is_refused(tmp_path: Path) -> None:
    opened = experiment(tmp_path, init=["zs", "ft"], deploy=["ft", "ema"])
    record(opened.store, [cell for cell in opened.study.cells if "ema ties" not in cell.name], served)
    with pytest.raises(UserError) as error:
        api.importance(opened)
    (fault,) = error.value.faults
    assert fault.startswith("4 of 16 cells are not finished (zs/ema ties · mini-tiny 2 steps seed 0, ")
    assert fault.endswith(f"shares are of whole grids; run: time-ray sweep {opened.words}")


def test_an_axis_must_have_several_values(tmp_path: Path) -> None:
    opened = swept(tmp_path, init="ft", deploy="ema", technique="average")
    with pytest.raises(UserError, match="every axis but the seed has one value"):
        api.importance(opened)


def test_importance_on_the_command_line(time_ray: Callable[..., Any], tmp_path: Path) -> None:
    opened = swept(tmp_path)
    words = ("importance", opened.path, "--by", "ka")
    done = time_ray(*words)
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines() if "…" in line][:2] == ["deploy", "technique"]
    assert "as served: init, deploy and init × deploy explain" in done.err
    assert "at best lengths: technique explains nothing" in done.err
    found = json.loads(time_ray(*words, "-f", "json").out)
    assert found == json.loads(json.dumps(api.importance(opened, "ka").as_dict()))
    assert found["at_best"]["headline"] == {"ratio": None, "low": None, "high": None}
    header, *rows = time_ray(*words, "-f", "csv").out.splitlines()
    assert header == "effect,share,low,high,share_at_best,low_at_best,high_at_best"
    assert rows[-1].startswith("headline,")
    (fault,) = time_ray("importance", opened.path, "seed=[0,1,2]").err.splitlines()
    assert "12 of 36 cells are not finished (zs/ft average" in fault
    assert fault.endswith(f"run: time-ray sweep {opened.path} 'seed=[0,1,2]'")
