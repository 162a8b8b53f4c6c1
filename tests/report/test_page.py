"""The page of `time-ray report`: sound HTML, whole by itself, with the sections that results allow."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import scored_store
from browser import browser_page
from made_results import finished, unfinished
from toy_grid import setting, strategies, technique

from time_ray import api
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell, grid
from time_ray.opened import Opened
from time_ray.report.page.write import page

VOID = {"meta", "input", "br", "hr", "img", "link"}
SMALL = {"init": ["zs", "ft"], "deploy": ["ft", "all"], "technique": ["average", {"name": "ties", "keep": 0.5}]}


class Page(HTMLParser):
    """HTML whose elements are closed in order, with what tests ask of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for attributes in self.all("section")]


def scores(cell: Cell, task: int, length: float) -> dict[str, float]:
    """More is learned than is lost, by technique and seed."""
    rate = 5.0 + cell.setting.seed + len(cell.technique.label) / 10 + len(cell.init.name)
    learned = dict.fromkeys(cell.setting.adaptation, 20 + rate * task * length)
    return learned | dict.fromkeys(cell.setting.evaluation, 80 - 6 * task * length**2)


def swept(folder: Path, **changes: object) -> Opened:
    opened = scored_store.experiment(folder, **{**SMALL, **changes})
    scored_store.record(opened.store, opened.study.everything, scores)
    return opened


def written(opened: Opened, folder: Path) -> tuple[str, Page]:
    html = api.report(opened, folder / "report.html").read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small sweep with seeds and lengths."""
    folder = tmp_path_factory.mktemp("page")
    techniques = ["average", {"name": "ties", "keep": 0.2}, {"name": "ties", "keep": 0.5}]
    return api.report(swept(folder, technique=techniques, evaluation={"lengths": [0.5]}), folder / "report.html")


def test_the_page_is_sound_and_loads_nothing(whole: Path) -> None:
    html = whole.read_text(encoding="utf-8")
    found = Page(html)
    ids = Counter(attributes["id"] for _, attributes in found.elements if "id" in attributes)
    assert max(ids.values()) == 1
    links = [value for _, one in found.elements for name, value in one.items() if name in ("src", "href", "action")]
    assert all(str(link).startswith("#") and str(link)[1:] in ids for link in links)
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= ids.keys()
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert found.all("html")[0]["lang"] == "en"
    assert all(attributes["aria-label"] for attributes in found.all("svg"))
    assert len(found.all("caption")) == len(found.all("table"))
    assert all(attributes.get("scope") for attributes in found.all("th"))
    for landmark in ("header", "nav", "main"):
        assert len(found.all(landmark)) == 1


def test_a_sweep_with_seeds_and_lengths_has_every_section(whole: Path) -> None:
    found = Page(whole.read_text(encoding="utf-8"))
    assert found.sections == [
        "verdict",
        "cells",
        "plane",
        "tasks",
        "lengths",
        "importance",
        "datasets",
        "numbers",
        "cost",
        "table",
        "origin",
    ]
    said = " ".join(found.words["p"])
    assert "Best-in-TIME: init " in said
    assert "better than the next" in said
    assert f"-o {whole}" in " ".join(found.words["code"])


def test_equal_results_give_equal_pages(whole: Path, tmp_path: Path) -> None:
    again = api.open_experiment(whole.with_name("scored.yaml"))
    assert api.report(again, tmp_path / "r.html").read_text().replace(str(tmp_path / "r.html"), str(whole)) == (
        whole.read_text()
    )


def test_one_seed_and_nothing_held_out(tmp_path: Path) -> None:
    alone = {"init": "ft", "deploy": "ft", "technique": "average", "seed": 0, "data": {"adaptation": "mini:chess"}}
    _, found = written(swept(tmp_path, **alone), tmp_path)
    assert found.sections == ["verdict", "cells", "tasks", "datasets", "cost", "table", "origin"]
    assert "unknown: one seed" in found.words["dd"]
    assert not any(word in found.words["th"] for word in ("ZS", "GM"))


def test_cells_that_are_not_finished_are_named(tmp_path: Path) -> None:
    opened = scored_store.experiment(tmp_path, **SMALL)
    done = [cell for cell in opened.study.cells if cell.init.label == "zs"]
    scored_store.record(opened.store, done, scores)
    _, found = written(opened, tmp_path)
    assert "importance" not in found.sections
    assert any("8 cells are not finished" in word for word in found.words["p"])
    assert f"time-ray sweep {opened.words}" in found.words["code"]


def test_rows_without_a_finished_cell_give_a_page_that_says_so(tmp_path: Path) -> None:
    opened = scored_store.experiment(tmp_path, **SMALL)
    half = [unfinished(one, rows=2) for one in finished(opened.study.everything, scores)]
    found = Page(page(opened, half, Criterion(), "time-ray report"))
    assert found.sections == ["verdict", "cost", "origin"]
    assert "No cell is finished, so nothing is ranked yet." in found.words["p"]
    assert "1 of 2 tasks" in found.words["td"]


def test_names_of_any_letters_are_harmless(tmp_path: Path) -> None:
    bad = '"><script>alert(1)</script>{{ 7*7 }}'
    opened = scored_store.experiment(tmp_path, **SMALL, about=bad)
    opened = replace(opened, overrides=(f"about={bad}",))
    of = [replace(setting(2, seed=seed), adaptation=(bad, "$x_1$"), evaluation=("</svg>\n<b>",)) for seed in (0, 1)]
    labelled = replace(technique("ties"), label=f"ties({bad})")
    cells = grid(strategies(("zs", "ema")), strategies(("ft", "all")), [labelled, technique()], of)
    html = page(opened, finished(cells, scores), Criterion(), "time-ray report")
    found = Page(html)
    assert len(found.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert "49" not in "".join(found.words["p"])
    assert bad in found.words["p"]
    assert bad in found.words["th"]


def test_the_scripts_digest_is_that_of_its_policy(whole: Path) -> None:
    import base64
    import hashlib

    html = whole.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(one["content"] for one in Page(html).all("meta") if one.get("http-equiv"))
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("where", ["folder", "missing/report.html"])
def test_a_file_that_cannot_be_written_is_one_line(
    whole: Path, tmp_path: Path, where: str, time_ray: Callable[..., Any]
) -> None:
    (tmp_path / "folder").mkdir()
    done = time_ray("report", whole.with_name("scored.yaml"), "-o", tmp_path / where)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: {tmp_path / where}")
    assert done.err.count("\n") == 1
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


def test_an_empty_sweep_is_one_line(tmp_path: Path) -> None:
    opened = scored_store.experiment(tmp_path, **SMALL)
    with pytest.raises(UserError, match="no cell is finished; run: time-ray sweep"):
        api.report(opened, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_page_of_a_sweep_that_mlflow_does_not_have(whole: Path, tmp_path: Path, time_ray: Callable[..., Any]) -> None:
    page = tmp_path / "report.html"
    done = time_ray("report", whole.with_name("scored.yaml"), "-o", page)
    assert (done.status, done.out) == (0, f"{page}\n")
    assert done.err == (
        "the page is not in MLflow (MLflow: sweep 'scored' is not there yet; copy it there with: time-ray sync)\n"
    )
    assert time_ray("report", whole.with_name("scored.yaml"), "-o", page, "--no-log").err == ""


@pytest.fixture
def html() -> Iterator[Any]:
    with browser_page(390, 800) as page:
        yield page


def test_the_page_works_in_a_browser(whole: Path, html: Any, tmp_path: Path) -> None:
    """By keyboard: metrics switch, rows are sorted and filtered, and the CSV has what is shown."""
    said: list[str] = []
    html.on("console", lambda message: said.append(message.text))
    html.on("request", lambda request: said.append(request.url))
    html.goto(whole.as_uri())
    assert html.evaluate("document.documentElement.scrollWidth") <= 390

    shown = "() => [...document.querySelectorAll('#cells .choice')].map(one => one.checkVisibility())"
    assert html.evaluate(shown) == [True, False, False]
    html.focus("#metric-1")
    html.keyboard.press("ArrowRight")
    assert html.evaluate(shown) == [False, True, False]

    column = html.evaluate("[...document.querySelectorAll('#scores th')].findIndex(one => one.textContent == 'KA')")
    values = f"() => [...document.querySelectorAll('#scores tbody tr')].map(row => +row.cells[{column}].dataset.n)"
    for expected in ("descending", "ascending"):
        html.focus(f"#scores th:nth-child({column + 1}) button")
        html.keyboard.press("Enter")
        assert html.get_attribute(f"#scores th:nth-child({column + 1})", "aria-sort") == expected
        found = html.evaluate(values)
        assert found == sorted(found, reverse=expected == "descending")
        assert len(found) > 4

    html.fill("#filter", "ft ties")
    rows = html.locator("#scores tbody tr:visible").all_inner_texts()
    assert 0 < len(rows) < len(found)
    assert all("ties" in row for row in rows)
    assert html.inner_text("#count").startswith(f"{len(rows)} of ")
    with html.expect_download() as waiting:
        html.click("#download")
    waiting.value.save_as(tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 1 + len(rows)
    assert lines[0].startswith("#,standing,init,deploy,technique")
    assert [text for text in said if not text.startswith(("file:", "blob:"))] == []
