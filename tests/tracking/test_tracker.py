"""MLflow loses nothing and doubles nothing, whatever becomes of its server and of who writes to it."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_state import points, tracked
from PIL import Image

from time_ray import api
from time_ray.core.metrics import METRICS
from time_ray.tracking import history, mlflow_sync, tracker
from time_ray.tracking import tracked as tracked_note
from time_ray.tracking.cell_runs import METRICS_TAG, CellRuns
from time_ray.tracking.client import open_client
from time_ray.tracking.mlflow_sync import MlflowSync
from time_ray.tracking.runs import CELL_TAG
from time_ray.tracking.tracker import Tracker

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": ["ft", "all"], "technique": "average"}


class Swept:
    """A finished sweep of two cells, and all that MLflow holds of it."""

    def __init__(self, path: Path) -> None:
        self.opened = api.open_experiment(path)
        assert api.sweep(self.opened).tracking_error is None
        self.tracked = tracked(f"sqlite:///{path.parent / 'runs' / 'mlflow.db'}")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Swept:
    return Swept(new_experiment(tmp_path_factory.mktemp("swept"), **SMALL))


@pytest.fixture
def empty(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store that has nothing yet; results are tracked there."""
    shutil.copy(drawn / "mlflow.db", tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)  # a server's artifacts lie where it was started
    return uri


def test_what_was_tracked_is_whole(swept: Swept) -> None:
    runs = swept.tracked["runs"]
    assert sorted(run["name"].split(",")[0] for run in runs) == ["ft/all average", "ft/ft average", "sweep of 2 cells"]
    assert {run["status"] for run in runs} == {"FINISHED"}
    cells = [run for run in runs if run["parent"]]
    assert len(cells) == len(swept.tracked["models"]) == 2
    for run in cells:
        assert [step for step, _ in run["metrics"]["KA"]] == [0, 1, 2, 3]
        assert len(run["models"]) == 1


def test_sync_fills_an_empty_store_with_the_same_runs(swept: Swept, empty: str, time_ray: Callable[..., Any]) -> None:
    path = swept.opened.path
    done = time_ray("sync", path)
    assert (done.status, done.out) == (0, "")
    assert done.err.endswith(f"MLflow at {empty} holds every result of {path}\n")
    assert tracked(empty) == swept.tracked
    assert time_ray("sync", path).status == 0
    assert tracked(empty) == swept.tracked


def test_sync_keeps_cells_under_the_sweep_that_had_them_first(
    new_experiment: Make, tmp_path: Path, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "grown").mkdir()
    path = new_experiment(tmp_path / "grown", **SMALL)
    with monkeypatch.context() as context:
        context.delenv("MLFLOW_TRACKING_URI")
        api.sweep(api.open_experiment(path, ["deploy=ft"]))
        api.sweep(api.open_experiment(path, ["seed=[0,1]"]))
    before = tracked(f"sqlite:///{path.parent / 'runs' / 'mlflow.db'}")
    parents = {(run["kind"], run["name"]): str(run["parent"]).split(",")[0] for run in before["runs"] if run["parent"]}
    assert parents == {
        ("summary", "ft/ft average"): "sweep of 1 cells",
        ("summary", "ft/all average"): "sweep of 4 cells",
        **{
            ("cell", f"ft/{deploy} average seed {s}"): f"ft/{deploy} average"
            for deploy in ("ft", "all")
            for s in (0, 1)
        },
    }
    assert api.sync(api.open_experiment(path, ["seed=[0,1]"])) is None
    assert tracked(empty) == before


class Unlucky:
    """A client whose answer to the first call of a method is lost, after the call was carried out or long before."""

    def __init__(self, client: Any, method: str, *, late: bool = False) -> None:
        self._client = client
        self._method = method
        self._late = late
        self.lost = 0
        self.delayed: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        whole = getattr(self._client, name)
        if name == "set_terminated":
            while self.delayed:
                self.delayed.pop()()
        if name != self._method or self.lost:
            return whole

        def lose(*args: Any, **kwargs: Any) -> None:
            self.lost += 1
            if self._late:
                self.delayed.append(lambda: whole(*args, **kwargs))
            else:
                whole(*args, **kwargs)
            raise ConnectionError("the answer was lost")

        return lose


WRITES = [
    "create_experiment",
    "create_run",
    "set_experiment_tag",
    "log_inputs",
    "log_artifacts",
    "set_logged_model_tags",
    "log_batch",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "set_terminated",
]
USUAL = ("create_run", "log_batch", "create_logged_model", "set_terminated")


@pytest.mark.parametrize(
    ("method", "late"),
    [
        *(pytest.param(name, False, marks=() if name in USUAL else pytest.mark.nightly) for name in WRITES),
        ("create_run", True),
    ],
)
def test_a_lost_answer_doubles_nothing(
    swept: Swept, empty: str, monkeypatch: pytest.MonkeyPatch, method: str, *, late: bool
) -> None:
    unlucky = Unlucky(open_client(empty), method, late=late)
    monkeypatch.setattr(tracker, "open_client", lambda _, **__: unlucky)
    assert api.sync(swept.opened) is None
    assert unlucky.lost == 1
    assert not unlucky.delayed
    assert tracked(empty) == swept.tracked


def test_a_writer_that_dies_between_points_and_their_sign_doubles_nothing(swept: Swept, empty: str) -> None:
    """Not even where a value that is written again would differ: what is there is read first."""
    assert api.sync(swept.opened) is None
    client = MlflowClient(empty)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    run = next(r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "ft/all average")
    client.set_tag(run.info.run_id, "time_ray.rows", "1")
    client.set_terminated(run.info.run_id, "FAILED")
    results = api.status(swept.opened)
    slower = [
        replace(
            result,
            rows=tuple(replace(row, seconds={k: v + 1 for k, v in row.seconds.items()}) for row in result.rows),
        )
        for result in results
    ]
    tracker = Tracker(swept.opened.study, swept.opened.files)
    tracker.sync(slower)
    tracker.finish(results)
    assert tracked(empty) == swept.tracked


def cell_runs(uri: str) -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.`time_ray.kind` = 'cell'"))


def synced(opened: api.Opened) -> None:
    assert api.sync(opened) is None


def swept_again(opened: api.Opened) -> None:
    assert api.sweep(opened).tracking_error is None


def fail_all(uri: str) -> None:
    """Another writer was at it, such as a driver that believed it still held the sweep."""
    for run in cell_runs(uri):
        MlflowClient(uri).set_terminated(run.info.run_id, "FAILED")


@pytest.mark.parametrize("again", [synced, swept_again])
def test_what_another_writer_changed_since_is_not_taken_for_complete(
    swept: Swept, empty: str, again: Callable[[api.Opened], None]
) -> None:
    synced(swept.opened)
    fail_all(empty)
    again(swept.opened)
    assert tracked(empty) == swept.tracked


def test_what_another_writer_changes_meanwhile_is_copied_again(
    swept: Swept, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, struck = Tracker.finish, []

    def finish_and_strike(self: Tracker, *args: Any) -> None:
        finish(self, *args)
        if not struck:
            struck.append("once")
            fail_all(empty)

    monkeypatch.setattr(Tracker, "finish", finish_and_strike)
    synced(swept.opened)
    assert tracked(empty) == swept.tracked


@contextmanager
def without(metric: str) -> Iterator[None]:
    """The table lacks a metric, and has all of them in their order again afterwards."""
    whole = dict(METRICS)
    del METRICS[metric]
    try:
        yield
    finally:
        METRICS.clear()
        METRICS.update(whole)


@pytest.mark.parametrize(
    ("again", "tagged"),
    [
        pytest.param(synced, True, id="with fewer metrics, synced"),
        pytest.param(swept_again, False, id="before there was a table, swept again"),
        pytest.param(swept_again, True, id="with fewer metrics, swept again", marks=pytest.mark.nightly),
        pytest.param(synced, False, id="before there was a table, synced", marks=pytest.mark.nightly),
    ],
)
def test_a_metric_that_is_added_reaches_runs_that_are_over(
    swept: Swept, empty: str, again: Callable[[api.Opened], None], *, tagged: bool
) -> None:
    with without("forgetting"):
        synced(api.open_experiment(swept.opened.path))
        assert tracked_note.is_tracked(swept.opened.study, swept.opened.files)
    assert not tracked_note.is_tracked(swept.opened.study, swept.opened.files)
    before, over = points(empty), {run.info.run_id: (run.info.status, run.info.end_time) for run in cell_runs(empty)}
    assert all("forgetting" not in run.data.metrics for run in cell_runs(empty))
    for run in () if tagged else cell_runs(empty):
        MlflowClient(empty).delete_tag(run.info.run_id, METRICS_TAG)
    again(api.open_experiment(swept.opened.path))
    assert tracked_note.is_tracked(swept.opened.study, swept.opened.files)
    assert tracked(empty) == swept.tracked
    assert points(empty) == before + 2 * 3  # of two cells, after each task but the base
    assert {run.info.run_id: (run.info.status, run.info.end_time) for run in cell_runs(empty)} == over
    again(api.open_experiment(swept.opened.path))
    assert points(empty) == before + 2 * 3


def test_a_metric_that_is_computed_differently_has_a_new_value_in_runs_that_are_over(
    swept: Swept, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point cannot be taken back; of two at a task MLflow shows the one that was logged later."""
    synced(swept.opened)
    before = points(empty)
    lower = replace(METRICS["gm"], compute=lambda history: min(history.accuracies[-1].values()), version=2)
    monkeypatch.setitem(METRICS, "gm", lower)
    for _ in range(2):
        synced(api.open_experiment(swept.opened.path))
        finals = {result.cell.key: result.final["gm"] for result in api.status(api.open_experiment(swept.opened.path))}
        for run in cell_runs(empty):
            assert run.data.metrics["GM"] == round(finals[run.data.tags[CELL_TAG]], 4)
            assert run.data.tags["device"] == "CPU"
        assert points(empty) == before + 2 * 4


class Down:
    """A tracker that fails so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, *args: Any) -> Tracker:
        if self.left:
            self.left -= 1
            raise ConnectionError("http://me:secret@127.0.0.1:1 refused")
        return Tracker(*args)


def test_an_outage_is_over_when_it_is_over(swept: Swept, empty: str) -> None:
    sync = MlflowSync(swept.opened.study, swept.opened.files, Down(mlflow_sync.LAST_TRIES - 1))
    sync.finish()
    assert sync.lag is None
    assert tracked(empty) == swept.tracked


def test_what_is_outstanding_is_said_without_secrets(swept: Swept, empty: str) -> None:
    sync = MlflowSync(swept.opened.study, swept.opened.files, Down(1000))
    sync.finish()
    assert sync.lag == "2 of 2 cells are not there yet (http://127.0.0.1:1 refused)"


def test_giving_up_says_what_is_left(swept: Swept, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 60.0)
    sync = MlflowSync(swept.opened.study, swept.opened.files)
    sync.changed(swept.opened.study.cells[0])
    sync.give_up()
    assert sync.lag == "1 of 2 cells are not there yet (stopped before they were copied)"


def test_cells_that_cannot_be_copied_hold_up_no_other_and_stay_open_nowhere(
    swept: Swept, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are tries, and the one that can be copied comes last."""
    opened = api.open_experiment(swept.opened.path, ["technique=[average,slerp,ties,magmax]", "deploy=[all,ft]"])
    with monkeypatch.context() as context:
        context.delenv("MLFLOW_TRACKING_URI")
        assert api.sweep(opened).exit_code == 0
    log_rows, taken = CellRuns._log_rows, opened.study.cells[-1].key

    def log_rows_of_one(cells: CellRuns, run: Any, result: Any) -> None:
        if result.cell.key != taken:
            raise ValueError("has a bad value")
        log_rows(cells, run, result)

    with monkeypatch.context() as context:
        context.setattr(CellRuns, "_log_rows", log_rows_of_one)
        sync = MlflowSync(opened.study, opened.files)
        sync.finish()
    assert sync.lag is not None
    assert sync.lag.startswith("7 of 8 cells are not there yet (")
    assert sync.lag.endswith(": has a bad value)")
    assert any(f"({cell.name}: " in sync.lag for cell in opened.study.cells[:-1])
    runs = tracked(empty)["runs"]
    assert {run["status"] for run in runs} == {"KILLED", "FINISHED"}
    assert {run["status"] for run in runs if run["parent"] is None} == {"KILLED"}
    assert [run["status"] for run in runs if run["metrics"]] == ["FINISHED"]
    synced(opened)
    assert {run["status"] for run in tracked(empty)["runs"]} == {"FINISHED"}


NAMES = ["cars (1999) & more", "R+D@home #1", "q\"u'o*t?e%s", "日本 [x]"]


def test_any_name_of_a_dataset_reaches_mlflow(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    for name in NAMES:
        for split in ("train", "test"):
            for word, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
                image_folder = tmp_path / "names" / name / split / word
                image_folder.mkdir(parents=True)
                Image.new("RGB", (32, 32), colour).save(image_folder / "0.png")
    data = {"adaptation": [str(tmp_path / "names" / name) for name in NAMES], "evaluation": "mini:textures"}
    path = new_experiment(tmp_path, **{**SMALL, "init": "zs", "deploy": "ft", "data": data, "stream": {"tasks": 1}})
    done = time_ray("sweep", path)
    assert done.status == 0, done.err
    assert "MLflow:" not in done.err
    runs = tracked(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")["runs"]
    assert {run["status"] for run in runs} == {"FINISHED"}
    (cell,) = (run for run in runs if run["parent"])
    assert sum(key.startswith(("adaptation/", "retention/")) for key in cell["metrics"]) == len(NAMES) + 1


@contextmanager
def silent_server() -> Iterator[int]:
    """A server that takes requests and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


@pytest.mark.nightly
def test_no_cell_waits_for_a_server_that_does_not_answer(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time_ray: Callable[..., Any]
) -> None:
    """All cells are done while the first request still waits; the sweep then says what is outstanding."""
    path = new_experiment(tmp_path, **SMALL)
    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(mlflow_sync, "LAST_TRIES", 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with silent_server() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:pa55word@127.0.0.1:{port}")
        done = time_ray("sweep", path)
        assert done.status == 0
        assert "MLflow: 2 of 2 cells are not there yet (" in done.err
        assert "pa55word" not in done.out + done.err
        again = time_ray("sync", path)
    assert again.status == 1
    assert again.err.startswith(f"error: MLflow at http://127.0.0.1:{port}: 2 of 2 cells are not there yet (")
    assert "pa55word" not in again.out + again.err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert time_ray("sweep", path).status == 0
    assert len(tracked(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")["models"]) == 2


def test_what_is_noted_of_a_sweep_holds_no_secret(swept: Swept) -> None:
    storage = "s3://key:pa55word@bucket/runs?token=t0ken"
    experiment = swept.opened.study.experiment.model_copy(update={"storage": storage})
    text = str(history._record(replace(swept.opened.study, experiment=experiment)))
    assert "s3://bucket/runs" in text
    assert "pa55word" not in text
    assert "t0ken" not in text
