"""Pictures of the documentation, made from a tiny sweep in this process."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.tools.pictures import mlflow_page
from time_ray.tools.pictures.__main__ import make
from time_ray.tools.pictures.loop_diagram import STAGES

Make = Callable[..., Path]
GRID = {"init": ["zs", "ema"], "deploy": ["ema", "all"], "technique": ["average", {"name": "ties", "scaling": 0.5}]}
LIMIT = 200_000  # bytes


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Path:
    path = new_experiment(tmp_path_factory.mktemp("pictures"), **GRID, stream={"tasks": 2})
    api.sweep(api.open_experiment(path))
    return path


def svg(path: Path) -> str:
    """A picture that GitHub shows: small, and with its texts drawn (they are left as comments)."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LIMIT
    assert "<text" not in text
    return text


def test_the_plot_has_every_cell_the_base_and_the_winners_name(swept: Path, tmp_path: Path) -> None:
    make(str(swept), (), tmp_path, ["scores"])
    text = svg(tmp_path / "scores.svg")
    ranked = api.best(api.open_experiment(swept)).rows
    cells = {name(row) for row in ranked}
    assert len(cells) == 8
    assert sorted(re.findall(r'id="cell (.*?)"', text)) == sorted(cells)
    assert text.count('id="base"') == 1
    best = ranked[0]
    assert f"Best-in-TIME: GM {best.means['gm']:.1f}" in text
    assert f"<!-- {name(best)} -->" in text


def name(row: api.Ranked) -> str:
    axes = row.contender.axes
    return f"{axes['init']} / {axes['deploy']}, {axes['technique']}"


def test_the_diagram_names_the_five_stages_and_three_axes(swept: Path, tmp_path: Path) -> None:
    make(str(swept), (), tmp_path, ["loop"])
    text = svg(tmp_path / "loop.svg")
    assert list(STAGES) == ["init", "train", "store", "deploy", "eval"]
    for words in (*STAGES, "axis init", "axis deploy", "axis technique"):
        assert f"<!-- {words} -->" in text


def test_the_same_results_give_the_same_bytes(swept: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        make(str(swept), (), tmp_path / name, ["loop", "scores"])
    for picture in ("loop.svg", "scores.svg"):
        assert (tmp_path / "one" / picture).read_bytes() == (tmp_path / "other" / picture).read_bytes()


def test_without_a_browser_one_line_says_what_to_install(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_page, "BROWSERS", ("no-such-browser",))
    with pytest.raises(UserError, match="apt-get install chromium"):
        make(str(swept), (), tmp_path, ["mlflow"])


def test_committed_pictures_are_small() -> None:
    pictures = list((Path(api.__file__).parent / "docs/pictures").iterdir())
    study = {path.name for path in pictures if path.name.startswith("study-")}  # see tools/study.py
    assert {path.name for path in pictures} == {"loop.svg", "scores.svg", "mlflow.png"} | study
    assert all(path.stat().st_size < LIMIT for path in pictures)
