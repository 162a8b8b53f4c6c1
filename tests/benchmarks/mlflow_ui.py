"""The MLflow UI with many runs: `python tests/benchmarks/mlflow_ui.py [RUNS ...]` (100, 1,000 and 10,000).

A sweep of 96 cells and 20 tasks that nobody trained is copied into MLflow by time_ray, as ever: that is timed, a cell.
Its runs then get 70 metrics and are doubled in the database until there are as many as asked. `time-ray ui` serves
them, and a headless Chromium opens its pages: seconds until the first row, charts, the metrics of a run are there. A
search for the best run by the API is timed, too. Needs a Chromium and Playwright, and 4 GB of disk for 10,000 runs.
"""

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from browser import browser_page
from mlflow import MlflowClient
from scored_store import experiment, keep_final, record

from time_ray.opened import Opened
from time_ray.results import read_results
from time_ray.tracking.client import tracking_uri
from time_ray.tracking.tracker import Tracker
from time_ray.tracking.views import ANSWER, CELLS, address

RUNS = (100, 1000, 10_000)
TASKS, METRICS = 20, 70
PORT = 5077
LOAD_SECONDS = 300
CELLS_ONLY = "tags.`time_ray.kind` = 'cell'"
TECHNIQUES = ("average", "slerp", "task_arithmetic", "ties", "dare_ties", "breadcrumbs_ties", "magmax", "model_stock")


def swept(folder: Path) -> Opened:
    """A finished sweep; scores differ from cell to cell and from task to task."""
    opened = experiment(folder, technique=[*TECHNIQUES], seed=0, data="mini", stream={"tasks": TASKS})
    place = {cell.key: number for number, cell in enumerate(opened.study.cells)}
    names = [*opened.study.cells[0].setting.adaptation, *opened.study.cells[0].setting.evaluation]

    def scores(cell: Any, task: int, length: float) -> dict[str, float]:
        return {name: (37 * place[cell.key] + 11 * task + 5 * n) % 90 + 5.0 for n, name in enumerate(names)}

    keep_final(opened.store, opened.study.cells)
    record(opened.store, opened.study.cells, scores)
    return opened


def copied(opened: Opened) -> tuple[str, str, float]:
    """MLflow has the sweep: its address, the experiment's id, and seconds a cell."""
    results = read_results(opened.study.cells, opened.store)
    tracker = Tracker(opened.study, opened.files)
    started = time.perf_counter()
    tracker.sync(results)
    tracker.finish(results)
    return tracker.uri, tracker.runs.experiment_id, (time.perf_counter() - started) / len(results)


def fill(database: sqlite3.Connection) -> None:
    """Every cell has METRICS metrics, each at every task."""
    for (run,) in _cells(database):
        there = {key for (key,) in database.execute("SELECT key FROM latest_metrics WHERE run_uuid = ?", (run,))}
        more = [f"adaptation/more {number:02}" for number in range(max(0, METRICS - len(there)))]
        points = [(key, 50.0 + task, 10**12 + task, run, task) for key in more for task in range(TASKS + 1)]
        words = "(key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
        database.executemany(f"INSERT INTO metrics {words}", points)
        database.executemany(f"INSERT INTO latest_metrics {words}", points[TASKS :: TASKS + 1])
    database.commit()


def multiply(database: sqlite3.Connection, runs: int) -> None:
    """There are so many runs of cells: those of the sweep, and copies of them under other ids."""
    originals = [run for (run,) in _cells(database) if not run.startswith("copy")]
    database.execute("CREATE TEMP TABLE copies (old TEXT PRIMARY KEY, new TEXT)")
    there = len(list(_cells(database)))
    names = [(originals[n % len(originals)], f"copy{n:08}{'0' * 20}") for n in range(there, runs)]
    for first in range(0, len(names), len(originals)):
        database.execute("DELETE FROM copies")
        database.executemany("INSERT INTO copies VALUES (?, ?)", names[first : first + len(originals)])
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            given = ", ".join("copies.new" if name == "run_uuid" else f"{table}.{name}" for name in columns)
            database.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608
                f"SELECT {given} FROM {table} JOIN copies ON {table}.run_uuid = copies.old"
            )
    database.execute("DROP TABLE copies")
    database.commit()


def _cells(database: sqlite3.Connection) -> list[tuple[str]]:
    query = "SELECT run_uuid FROM tags WHERE key = 'time_ray.kind' AND value = 'cell' ORDER BY run_uuid"
    return database.execute(query).fetchall()


@contextmanager
def served(opened: Opened) -> Iterator[str]:
    """The address of the UI, as `time-ray ui` serves it."""
    words = [sys.executable, "-m", "time_ray", "ui", str(opened.path), "--port", str(PORT)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(f"http://127.0.0.1:{PORT}/health")
            yield f"http://127.0.0.1:{PORT}/"
        finally:
            server.terminate()


def _wait(url: str) -> None:
    deadline = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < deadline:
        try:
            urlopen(url, timeout=5).close()  # noqa: S310
        except (URLError, OSError):
            time.sleep(0.3)
        else:
            return
    sys.exit(f"{url}: no answer within {LOAD_SECONDS} s")


def seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def pages(server: str, experiment_id: str, best: str) -> dict[str, float]:
    """Seconds until each page shows what it is for; the first also loads the UI itself."""
    limit = LOAD_SECONDS * 1000
    with browser_page() as page:

        def shows(url: str, what: str) -> float:
            page.goto("about:blank")
            return seconds(lambda: (page.goto(server + url), page.wait_for_selector(what, timeout=limit)))

        charts = "g.scatterlayer path.point"
        return {
            "table, first visit": shows(address(experiment_id, CELLS), ".ag-row"),
            "table": shows(address(experiment_id, CELLS), ".ag-row"),
            "charts": shows(address(experiment_id, ANSWER), charts),
            "a run": shows(f"#/experiments/{experiment_id}/runs/{best}", "text=KA"),
        }


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or list(RUNS)
    with tempfile.TemporaryDirectory() as folder:
        opened = swept(Path(folder))
        uri, experiment_id, a_cell = copied(opened)
        print(f"copying a cell of {TASKS} tasks with its figures and its model: {a_cell:.2f} s")
        database = Path(opened.files.path("mlflow.db"))
        client = MlflowClient(tracking_uri(opened.files))
        for count in counts:
            with closing(sqlite3.connect(database)) as connection:
                fill(connection)
                multiply(connection, count)
                (rows,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
                num = len(_cells(connection))
            print(f"{num} cells, {rows} points, database of {database.stat().st_size / 1e9:.2f} GB ({uri[:6]})")
            started = time.perf_counter()
            best = client.search_runs([experiment_id], CELLS_ONLY, max_results=100, order_by=["metrics.GM DESC"])[0]
            print(f"  {'the best 100 by the API':<24}{time.perf_counter() - started:8.2f} s")
            with served(opened) as server:
                for name, took in pages(server, experiment_id, best.info.run_id).items():
                    print(f"  {name:<24}{took:8.2f} s")


if __name__ == "__main__":
    main()
