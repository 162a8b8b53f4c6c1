"""What runs say: how they differ, what seeds say together, how a sweep ended, and what it found."""

import base64
import json
import logging
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_state import rows, tracked

from time_ray import api
from time_ray.api import Opened
from time_ray.core.errors import UserError
from time_ray.core.statistics import deviation, mean
from time_ray.events import CellFailed
from time_ray.figures import artifacts
from time_ray.tracking import mlflow_sync, pictures, tracker
from time_ray.tracking.client import open_client
from time_ray.tracking.host import Host
from time_ray.tracking.mlflow_sync import MlflowSync
from time_ray.tracking.tracker import Ended, Tracker, log_report
from time_ray.tracking.views import VIEW_TAGS

Make = Callable[..., Path]
CHANGES: dict[str, Any] = {"init": "ft", "deploy": ["ft", "all"], "technique": "average", "seed": [0, 1]}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Opened:
    """Two places with two seeds each, swept; its own MLflow is never written again."""
    found = api.open_experiment(new_experiment(tmp_path_factory.mktemp("seeds"), **CHANGES))
    assert api.sweep(found).tracking_error is None
    return found


@pytest.fixture
def uri(opened: Opened, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store that has nothing yet; results are tracked there."""
    shutil.copy(drawn / "mlflow.db", tmp_path)
    found = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found)
    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    return found


def sync(opened: Opened) -> Tracker:
    """MLflow holds all that there is, by a tracker of its own."""
    made = Tracker(opened.study, opened.files)
    results = api.status(opened)
    made.sync(results)
    made.finish(results)
    return made


def runs_of(uri: str, kind: str) -> list[Any]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`time_ray.kind` = '{kind}'"))


def test_seeds_have_a_run_together_with_mean_and_deviation(opened: Opened, uri: str) -> None:
    sync(opened)
    client = MlflowClient(uri)
    summaries = {run.data.params["deploy"]: run for run in runs_of(uri, "summary")}
    assert sorted(run.info.run_name for run in summaries.values()) == ["ft/all average", "ft/ft average"]
    for deploy, run in summaries.items():
        finals = [result.final for result in api.status(opened) if result.cell.axes["deploy"] == deploy]
        for name in ("ka", "zs", "gm"):
            values = [round(final[name] or 0.0, 4) for final in finals]
            assert run.data.metrics[name.upper()] == round(mean(values), 4)
            assert run.data.metrics[f"{name.upper()}_sd"] == round(deviation(values) or 0.0, 4)
        assert run.data.metrics["seeds"] == 2
        assert run.data.tags["tied"] in ("yes", "no")
        assert run.data.metrics["tied"] == (run.data.tags["tied"] == "yes")
        assert "seed" not in run.data.params
        assert [point.step for point in client.get_metric_history(run.info.run_id, "GM")] == [0, 1, 2, 3]
        children = [c for c in runs_of(uri, "cell") if c.data.tags["mlflow.parentRunId"] == run.info.run_id]
        assert sorted(child.data.params["seed"] for child in children) == ["0", "1"]
    (sweep,) = runs_of(uri, "sweep")
    assert {run.data.tags["mlflow.parentRunId"] for run in summaries.values()} == {sweep.info.run_id}


def test_the_view_lists_finished_summaries_and_nothing_else(opened: Opened, uri: str) -> None:
    sync(opened)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    for tag in VIEW_TAGS.values():
        packed = experiment.tags[tag].removeprefix("deflate;")
        assert len(packed) < 5000
        view = json.loads(zlib.decompress(base64.b64decode(packed)))
        found = client.search_runs([experiment.experiment_id], view["searchFilter"])
        kinds = {run.data.tags["time_ray.kind"] for run in found}
        assert kinds == ({"summary"} if view["searchFilter"] else {"sweep", "summary", "cell"})


def test_a_sweep_says_what_it_found(opened: Opened, uri: str) -> None:
    sync(opened)
    (run,) = runs_of(uri, "sweep")
    ranked = api.best(opened)
    assert run.data.tags["best.deploy"] == ranked.leader.contender.axes["deploy"]
    assert run.data.metrics["GM"] == pytest.approx(ranked.leader.means["gm"], abs=1e-4)
    assert run.data.metrics["cells_done"] == 4
    assert run.data.metrics["cells_failed"] == 0
    assert run.data.metrics["importance/deploy"] == pytest.approx(1)
    assert run.data.metrics["cost/saved_seconds"] > 0
    assert run.data.params["cells"] == "4"
    assert run.data.params["training.batch_size"] == "8"
    assert {one.tags[0].value for one in run.inputs.dataset_inputs} == {"adaptation", "retention"}
    note = run.data.tags["mlflow.note.content"]
    assert "viewStateShareKey=answer" in note
    assert "time-ray sweep experiment.yaml" in note


def test_what_a_person_wrote_stays(opened: Opened, uri: str) -> None:
    sync(opened)
    (run,) = runs_of(uri, "sweep")
    MlflowClient(uri).set_tag(run.info.run_id, "mlflow.note.content", "mine")
    sync(opened)
    (run,) = runs_of(uri, "sweep")
    assert run.data.tags["mlflow.note.content"] == "mine"


def test_runs_that_differ_look_different(new_experiment: Make, tmp_path: Path, uri: str) -> None:
    """By their names within the experiment, and by parameters that are numbers."""
    ema = [{"name": "ema", "weight": 0.3}, {"name": "ema", "weight": 0.7}]
    ties = [{"name": "ties", "keep": keep} for keep in (0.2, 0.5)]
    path = new_experiment(tmp_path, init=ema, deploy=[ema[0], "ft"], technique=ties, budget=["2 steps", "3 steps"])
    opened = api.open_experiment(path)
    other = api.open_experiment(path, ["training.weight_decay=0.1"])
    for one in (opened, other):  # both are started, so that each knows of the other
        Tracker(one.study, one.files).finish(api.status(one))
    for one in (opened, other):
        made = Tracker(one.study, one.files)
        for cell in one.study.cells:
            made._cells._make(cell)
            made.runs.log(made.runs.cells[cell.key], params=made._tracked.params(cell))
    found = runs_of(uri, "cell")
    assert len({run.info.run_name for run in found}) == len({str(run.data.params) for run in found}) == len(found) == 32
    (run,) = (run for run in found if run.info.run_name == FULL_NAME)
    params = run.data.params
    assert {key: params[key] for key in ("init.ema.weight", "deploy.ema.weight", "technique.keep", "budget.steps")} == {
        "init.ema.weight": "0.7",
        "deploy.ema.weight": "0.3",
        "technique.keep": "0.2",
        "budget.steps": "3",
    }
    assert params["technique.scaling"] == "1.0"
    assert params["training.weight_decay"] == "0.1"
    assert "ema.weight" not in params
    assert "training.beta1" not in params


FULL_NAME = "ema(weight=0.7)/ema(weight=0.3) ties(keep=0.2) 3 steps training.weight_decay=0.1"


def test_losses_lie_on_the_steps_of_all_tasks(opened: Opened, uri: str) -> None:
    sync(opened)
    client = MlflowClient(uri)
    for run in runs_of(uri, "cell"):
        for key in ("training/loss", "training/lr"):
            points = client.get_metric_history(run.info.run_id, key)
            assert [point.step for point in sorted(points, key=lambda point: point.step)] == [1, 2, 3, 4, 5, 6]
        assert int(run.data.metrics["tasks_done"]) == 3
        assert float(run.data.params["budget.gflops"]) > 0


def test_how_cells_ended(opened: Opened, uri: str) -> None:
    """One failed, one was interrupted; then all are done, and nothing speaks of it any more."""
    failed, stopped, *_ = results = api.status(opened)
    made = Tracker(opened.study, opened.files)
    cut = [replace_rows(result, 2) if result in (failed, stopped) else result for result in results]
    made.sync(cut)
    made.finish(cut, Ended({failed.cell.key: "step 3: the loss is nan"}, interrupted=True))
    states = {run.data.tags["time_ray.cell"]: run for run in runs_of(uri, "cell")}
    assert states[failed.cell.key].info.status == "FAILED"
    assert states[failed.cell.key].data.tags["time_ray.failure"] == "step 3: the loss is nan"
    assert states[stopped.cell.key].info.status == "KILLED"
    assert [run.info.status for run in runs_of(uri, "sweep")] == ["FAILED"]
    assert {run.info.status for run in runs_of(uri, "summary")} <= {"FAILED", "KILLED", "FINISHED"}
    sync(opened)
    assert {run["status"] for run in tracked(uri)["runs"]} == {"FINISHED"}
    assert all("time_ray.failure" not in run.data.tags for run in runs_of(uri, "cell"))


def replace_rows(result: Any, count: int) -> Any:
    """The cell as it was after so many rows."""
    from dataclasses import replace

    return replace(result, rows=result.rows[:count], weights=None)


def test_runs_of_a_sweep_that_fails_or_is_broken_off_are_closed(opened: Opened, uri: str) -> None:
    half = [replace_rows(result, 2) for result in api.status(opened)]
    made = Tracker(opened.study, opened.files)
    made.sync(half)
    sync = MlflowSync(opened.study, opened.files)
    sync.break_off(Ended())
    assert sync.lag is not None
    assert {run["status"] for run in tracked(uri)["runs"]} == {"KILLED"}


def test_a_failing_cell_without_any_row_has_a_run(opened: Opened, uri: str) -> None:
    made = Tracker(opened.study, opened.files)
    none = [replace_rows(result, 0) for result in api.status(opened)]
    event = CellFailed(opened.study.cells[0].key, "no image can be read")
    made.finish(none, Ended({event.cell: event.error}))
    (run,) = runs_of(uri, "cell")
    assert (run.info.status, run.data.tags["time_ray.failure"]) == ("FAILED", "no image can be read")


class Dying:
    """A client whose process ends at a certain call that writes."""

    WRITES = ("create", "log", "set", "update", "delete", "finalize")

    def __init__(self, client: Any, left: int) -> None:
        self._client = client
        self.left = left

    def __getattr__(self, name: str) -> Any:
        whole = getattr(self._client, name)
        if not name.startswith(self.WRITES):
            return whole

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return whole(*args, **kwargs)

        return call


@pytest.fixture
def undisturbed(opened: Opened, uri: str, tmp_path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """What there is after one undisturbed copy."""
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "empty.db")
    sync(opened)
    found = rows(uri), tracked(uri)
    sync(opened)
    assert rows(uri) == found[0]
    return found


@pytest.mark.parametrize("calls", [13, *(pytest.param(few, marks=pytest.mark.nightly) for few in (5, 6, 7))])
def test_a_writer_that_dies_anywhere_doubles_nothing(
    opened: Opened,
    undisturbed: tuple[dict[str, int], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    """It is started again and again, and gets a few calls further each time; a model takes four in a row."""
    uri = f"sqlite:///{tmp_path / 'empty.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(tracker, "open_client", lambda uri, **_: Dying(open_client(uri), calls))
    deaths = 0
    while deaths < 100:
        try:
            sync(opened)
        except KeyboardInterrupt:
            deaths += 1
        else:
            break
    assert 2 < deaths < 100
    assert rows(uri) == undisturbed[0]
    assert tracked(uri) == undisturbed[1]


def test_runs_of_an_earlier_version_are_upgraded_in_place(
    opened: Opened, uri: str, undisturbed: tuple[dict[str, int], dict[str, Any]], tmp_path: Path
) -> None:
    """They had fewer points and parameters, no summaries, figures nor inputs, and names without what differs."""
    before = {run.info.run_id for run in runs_of(uri, "cell")}
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for sentence in EARLIER:
            database.execute(sentence)
    database.close()
    for run in runs_of(uri, "summary"):
        MlflowClient(uri).delete_run(run.info.run_id)
    sync(opened)
    assert {run.info.run_id for run in runs_of(uri, "cell")} == before
    assert tracked(uri) == undisturbed[1]


NEW_KEYS = "(key like 'adaptation/%' or key like 'retention/%' or key like 'training/%' or key = 'tasks_done')"
CELLS = "(select run_uuid from tags where key = 'time_ray.kind' and value = 'cell')"
OLD_PARAMS = "('init', 'deploy', 'technique', 'model', 'budget', 'seed', 'tasks')"
EARLIER = (
    f"delete from metrics where {NEW_KEYS}",  # noqa: S608 our own words
    f"delete from latest_metrics where {NEW_KEYS}",  # noqa: S608
    f"delete from params where key not in {OLD_PARAMS}",  # noqa: S608
    "delete from tags where key in ('time_ray.whole', 'time_ray.asked', 'time_ray.figures', 'tied', 'leader')",
    "update tags set value = 'older' where key = 'time_ray.metrics'",
    f"update tags set value = 'older' where key = 'mlflow.runName' and run_uuid in {CELLS}",  # noqa: S608
    f"update runs set name = 'older' where run_uuid in {CELLS}",  # noqa: S608
    "delete from experiment_tags",
    "delete from inputs",
    "delete from logged_model_metrics",
)


def test_the_best_model_is_found_by_its_scores_or_by_its_tag(opened: Opened, uri: str) -> None:
    sync(opened)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    by_gm = [{"field_name": "metrics.GM", "ascending": False}]
    models = client.search_logged_models([experiment.experiment_id], order_by=by_gm)
    scores = [next(metric.value for metric in model.metrics if metric.key == "GM") for model in models]
    assert scores == sorted(scores, reverse=True)
    results = api.status(opened)
    highest = max(results, key=lambda result: result.final["gm"] or 0.0)
    assert highest.weights is not None
    assert models[0].tags["time_ray.digest"] == highest.weights["digest"]
    winner = api.best(opened).winner
    assert winner.weights is not None
    (leader,) = client.search_logged_models([experiment.experiment_id], "tags.`time_ray.leader` = 'true'")
    assert leader.tags["time_ray.digest"] == winner.weights["digest"]


@pytest.mark.usefixtures("drawn_figures")
def test_a_sweep_and_its_cells_have_figures_of_their_own(opened: Opened, uri: str) -> None:
    sync(opened)
    found = {
        kind: {file.path for file in MlflowClient(uri).list_artifacts(runs_of(uri, kind)[0].info.run_id, "figures")}
        for kind in ("sweep", "summary", "cell")
    }
    assert {"figures/heat_map.svg", "figures/ka_zs.svg", "figures/cost.svg"} < found["sweep"]
    assert found["summary"] == found["cell"] == {"figures/tasks.svg", "figures/datasets.svg"}


@pytest.mark.usefixtures("drawn_figures")
def test_a_figure_that_cannot_be_drawn_stops_nothing(
    opened: Opened, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> Iterator[tuple[str, bytes]]:
        yield "tasks.svg", b"<svg/>"
        raise ZeroDivisionError("no room")

    monkeypatch.setattr(artifacts, "of_summary", broken)
    monkeypatch.setattr(artifacts, "of_sweep", lambda *_: iter([]))
    pictures._not_drawn.cache_clear()
    with caplog.at_level(logging.WARNING):
        sync(opened)
    assert [record.getMessage() for record in caplog.records if "figure" in record.getMessage()] == [
        "MLflow: a figure is not there: ZeroDivisionError: no room"
    ]
    client = MlflowClient(uri)
    for run in runs_of(uri, "cell"):
        assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/tasks.svg"]


def test_a_report_lies_in_the_run_of_the_sweep(opened: Opened, uri: str, tmp_path: Path) -> None:
    page = tmp_path / "mine.html"
    page.write_text("<p>", encoding="utf-8")
    with pytest.raises(UserError, match="sweep 'tiny' is not there yet; copy it there with: time-ray sync"):
        log_report(opened.study, opened.files, page)
    sync(opened)
    for _ in range(2):
        log_report(opened.study, opened.files, page)
    (run,) = runs_of(uri, "sweep")
    assert "report.html" in [file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)]


def test_the_machine_of_a_sweep_is_watched(opened: Opened, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples wait while MLflow is away, and are there once."""
    host = Host()
    host.sample()
    host.sample()  # too early
    assert not host.waiting(0)
    host._due = 0.0
    host.sample()
    made = Tracker(opened.study, opened.files)
    with monkeypatch.context() as context:
        context.setattr(made.runs, "client", Dying(made.client, 0))
        with pytest.raises(KeyboardInterrupt):
            made.log_host(host)
    for _ in range(2):
        Tracker(opened.study, opened.files).log_host(host)
    (run,) = runs_of(uri, "sweep")
    (point,) = MlflowClient(uri).get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert 0 <= point.value <= 100
