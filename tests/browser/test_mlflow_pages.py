"""The real MLflow UI in a headless Chromium: it opens on the answer, and answers further questions."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from browser import browser_page
from postgres import postgres
from ray_head import free_ports
from scored_store import experiment, keep_final, record

from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import Ranking, ranking
from time_ray.opened import Opened
from time_ray.results import CellResult, read_results
from time_ray.tracking.tracker import Tracker
from time_ray.tracking.views import ALL, ANSWER, CELLS, address

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

START_SECONDS = 180
LOAD = 90_000  # milliseconds


def swept(folder: Path) -> tuple[Opened, list[CellResult]]:
    """A sweep that is finished, of 24 cells with two seeds each: KA falls where ZS rises, and the last is the best."""
    opened = experiment(folder)
    order = {name: number for number, name in enumerate(sorted({_place(cell) for cell in opened.study.cells}))}
    keep_final(opened.store, opened.study.cells)

    def scores(cell: Any, task: int, length: float) -> dict[str, float]:
        place = order[_place(cell)]
        return {"chess": 20.0 + 2 * place * task / 2, "textures": 90.0 - place * task / 2 + cell.setting.seed}

    record(opened.store, opened.study.cells, scores)
    return opened, read_results(opened.study.cells, opened.store)


def _place(cell: Any) -> str:
    return "/".join(value for axis, value in cell.axes.items() if axis != "seed")


@contextmanager
def answering(words: list[str], folder: Path, port: int, **variables: str) -> Iterator[str]:
    """A server runs, and answers; what it says is in a file of the folder."""
    with (
        (folder / f"{port}.log").open("wb") as log,
        subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env={**os.environ, **variables}) as server,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(port):
                assert server.poll() is None, (folder / f"{port}.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    try:
        urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except (URLError, OSError):
        return False
    return True


class Pages:
    """The pages of a sweep, as a researcher sees them."""

    def __init__(self, page: Any, server: str, tracker: Tracker, ranked: Ranking) -> None:
        self.page = page
        self.server = server
        self.tracker = tracker
        self.ranked = ranked

    def open(self, view: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(self.server + address(self.tracker.runs.experiment_id, view))

    def row(self, number: int) -> str:
        """The texts of a row of the table, without its name."""
        return self.page.locator(f'.ag-center-cols-container [row-index="{number}"]').inner_text(timeout=LOAD)

    def name(self, number: int) -> str:
        return self.page.locator(f'[row-index="{number}"] a').first.inner_text(timeout=LOAD)


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def pages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    opened, results = swept(folder)
    port = free_ports(1)[0]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "SQLite":
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            tracker = _copied(opened, results)
            words = [sys.executable, "-m", "time_ray", "ui", str(opened.path), "--port", str(port)]
            with answering(words, folder, port) as server, browser_page(1600, 1000) as page:
                yield Pages(page, server, tracker, _ranked(opened, results))
            return
        with postgres() as database:
            words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
            words += ["--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
            with answering([*words, "--workers", "1"], folder, port) as server:
                patch.setenv("MLFLOW_TRACKING_URI", server.rstrip("/"))
                tracker = _copied(opened, results)
                with browser_page(1600, 1000) as page:
                    yield Pages(page, server, tracker, _ranked(opened, results))


def _copied(opened: Opened, results: list[CellResult]) -> Tracker:
    tracker = Tracker(opened.study, opened.files)
    tracker.sync(results)
    tracker.finish(results)
    return tracker


def _ranked(opened: Opened, results: list[CellResult]) -> Ranking:
    return ranking(results, Halves(opened.store))


def test_the_charts_open_on_the_answer(pages: Pages) -> None:
    pages.open(ANSWER)
    pages.page.get_by_text("KA vs. ZS").first.wait_for(timeout=LOAD)
    pages.page.locator(".scatterlayer path.point").first.wait_for(timeout=LOAD)
    pages.page.locator(".parcoords, .parallel-coords, canvas").first.wait_for(state="attached", timeout=LOAD)
    pages.page.get_by_text("24 matching runs").wait_for(timeout=LOAD)
    assert pages.page.errors == []


def test_the_table_has_a_row_for_each_cell_over_its_seeds_the_best_first(pages: Pages) -> None:
    pages.open(CELLS)
    axes = pages.ranked.leader.contender.axes
    assert pages.name(0).startswith(f"{axes['init']}/{axes['deploy']}")
    pages.page.get_by_text("24 matching runs").wait_for(timeout=LOAD)
    assert f"{pages.ranked.leader.means['gm']:.2f}" in pages.row(0)


def test_rows_are_sorted_by_another_metric(pages: Pages) -> None:
    pages.open(CELLS)
    first = pages.name(0)
    pages.page.get_by_role("button", name="Sort: GM").click(timeout=LOAD)
    pages.page.get_by_role("menuitemcheckbox", name="ZS", exact=True).first.click()
    pages.page.get_by_role("button", name="Sort: ZS").wait_for(timeout=LOAD)
    most = max(row.means["zs"] or 0 for row in pages.ranked.rows)
    pages.page.wait_for_function(
        "most => document.querySelector('.ag-center-cols-container [row-index=\"0\"]')?.innerText.includes(most)",
        arg=f"{most:g}",
        timeout=LOAD,
    )
    assert pages.name(0) != first


def test_rows_are_filtered(pages: Pages) -> None:
    pages.open(CELLS)
    pages.page.get_by_text("24 matching runs").wait_for(timeout=LOAD)
    field = pages.page.locator('input[placeholder*="metrics"]').first
    field.fill(f"{field.input_value()} and params.init = 'ema'")
    field.press("Enter")
    pages.page.get_by_text("6 matching runs").wait_for(timeout=LOAD)


def test_two_cells_are_compared(pages: Pages) -> None:
    pages.open(CELLS)
    boxes = pages.page.locator(".ag-row .ag-checkbox-input")
    boxes.first.wait_for(timeout=LOAD)
    boxes.nth(0).click()
    boxes.nth(1).click()
    pages.page.get_by_test_id("runs-compare-button").click(timeout=LOAD)
    pages.page.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for(timeout=LOAD)


def test_a_sweep_lies_above_its_cells_and_its_figures_are_seen(pages: Pages) -> None:
    pages.open(ALL)
    assert pages.name(0).startswith("sweep of 48 cells")
    (sweep,) = pages.tracker.runs.sweeps.values()
    runs = f"{pages.server}#/experiments/{pages.tracker.runs.experiment_id}/runs/{sweep.id}"
    pages.page.goto(f"{runs}/artifacts/figures/heat_map.svg")
    figure = pages.page.locator('img[src^="blob:"]').first
    figure.wait_for(timeout=LOAD)
    assert figure.evaluate("image => image.naturalWidth") > 300
    pages.page.goto(runs)
    pages.page.get_by_text("time-ray compare").first.wait_for(timeout=LOAD)  # the description says how to go on
