"""The page of the study, made from planted results."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from scored_store import experiment, record

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell
from time_ray.tools.study import make, opened_all

GRID: dict[str, object] = {"init": ["zs", "ft", "ema"], "deploy": ["ft", "ema", "all"], "evaluation": {"lengths": 0.5}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> api.Opened:
    """All variants are finished: init and deploy count, techniques do not, and ema/ema is best by far."""

    def percents(cell: Cell, task: int, length: float) -> Mapping[str, float | tuple[float, float]]:
        cells = {"zs": 30, "ft": 45, "ema": 52}[cell.init.name] + {"ft": 0, "ema": 5, "all": 2}[cell.deploy.name]
        return {"chess": cells + cell.setting.seed - 3 * (length != 1) if task else 20, "textures": 64}

    opened = experiment(tmp_path_factory.mktemp("study"), **GRID)
    for one in api.findings_need(opened).values():
        record(one.store, one.study.cells, percents)
    return opened


def test_the_page_says_what_holds_what_does_not_and_what_is_only_planned(swept: api.Opened, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "study.md"
    page.parent.mkdir()
    make([swept, swept], [swept], page)
    text = page.read_text(encoding="utf-8")
    title = f"`{Path(swept.path).name}`"
    found = api.findings(swept)
    shown = {f"| {one.claim} | {one.says} | {one.verdict} | {one.verdict} |" for one in found}
    assert {one.verdict for one in found} >= {"held", "not held"}
    assert shown <= set(text.splitlines())
    lacks = text.partition("## What does not show")[2].partition("\n## ")[0]
    assert {one.claim for one in found if one.verdict != "held"} == {
        line[2:4] for line in lacks.splitlines() if line.startswith("- ")
    }
    assert text.count(f"## {title}") == 2
    assert text.count("(pictures/study-1.svg)") == text.count("(pictures/study-2.svg)") == 1
    assert (page.parent / "pictures" / "study-2.svg").read_text(encoding="utf-8").startswith("<?xml")
    planned = text.partition("## Planned only")[2]
    assert f"| {title} | as written | {len(swept.study.cells)} |" in planned
    assert "| offline |" in planned


def test_overrides_belong_to_the_experiment_before_them(swept: api.Opened) -> None:
    first, second = opened_all([swept.path, "seed=[5]", "budget=3 steps", swept.path])
    assert (first.study.experiment.seed, second.study.experiment.seed) == ((5,), (0, 1))
    with pytest.raises(UserError, match="seed=3': is before any experiment"):
        opened_all(["seed=3", swept.path])
