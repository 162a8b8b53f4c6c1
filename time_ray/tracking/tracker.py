"""MLflow: one parent run a sweep, one child run a cell, one logged model for each distinct set of final weights.

Results reach the store first and are copied here; every call may be repeated and doubles nothing: runs and models
are found again by tags, and a metric point is the same row whenever the same value is logged at the same step.
A cell has one run in an experiment, under the sweep that ran it first: a grid that grows adds only what is new.
"""

import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from time_ray.analysis.final_weights import FinalWeights, final_weights
from time_ray.clip.preprocessing import resolve
from time_ray.core.errors import StoreError, UserError
from time_ray.core.experiment import AXES
from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.core.loopback import past_proxies
from time_ray.core.metrics import METRICS, metrics_version
from time_ray.core.secrets import hidden
from time_ray.results import CellResult, TaskResult
from time_ray.serving.served import Served
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.tracking.history import owners, sweep_key
from time_ray.tracking.model_flavor import write_model
from time_ray.tracking.moved_storage import ARTIFACTS, follow_storage
from time_ray.tracking.names import LENGTH, metric_key, within
from time_ray.tracking.uris import database_file, database_uri, folder_uri

SWEEP_TAG = "time_ray.sweep"
CELL_TAG = "time_ray.cell"
ROWS_TAG = "time_ray.rows"  # how many rows of the cell were logged
METRICS_TAG = "time_ray.metrics"  # the table of metrics that they were logged with
TOLD_TAG = "time_ray.told"  # the sweep's experiment was logged
DIGEST_TAG = "time_ray.digest"
FLAVOR_TAG = "time_ray.flavor"  # MLflow can load the model; those of earlier versions are weights alone
VIEW = "cells"  # the view of an experiment that `time-ray ui` opens
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
BATCH = 1000  # metrics that MLflow takes at once

# our own retries find again what is there before they write; MLflow's would write blindly
_SETTINGS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is data
}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def tracking_uri(files: Files) -> str:
    """Where results are tracked: MLFLOW_TRACKING_URI, else an SQLite file under a local storage root."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        _check(uri)
        return uri
    if not files.is_local:
        msg = f"storage: {files.shown} cannot hold an SQLite file; set MLFLOW_TRACKING_URI to an MLflow server"
        raise UserError(msg)
    return database_uri(files.path("mlflow.db"))


def _check(uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    try:
        parts = urlsplit(uri)
        whole = bool(rest) and (not scheme.startswith("http") or (parts.hostname and parts.port != 0))
    except ValueError:
        whole = False
    if scheme == "databricks" or (whole and (scheme in ("http", "https") or _is_database(uri))):
        return
    where = "http://HOST:PORT of an MLflow server, or a database as in sqlite:////absolute/path.db"
    raise UserError(f"MLFLOW_TRACKING_URI: '{hidden(uri)}' is no address of MLflow; write {where}")


def _is_database(uri: str) -> bool:
    return uri.partition("://")[0].partition("+")[0] in _DATABASES


def is_tracked(study: Study, files: Files) -> bool:
    """Whether everything of this study, with every metric, was copied to where it is tracked."""
    return Store(files).entry("tracked", _tracked_key(study, files)) is not None


def note_tracked(study: Study, files: Files) -> None:
    """Everything of this study has been copied to where it is tracked."""
    Store(files).record("tracked", _tracked_key(study, files), {"sweep": sweep_key(study)})


def _tracked_key(study: Study, files: Files) -> str:
    return key_of("tracked", hidden(tracking_uri(files)), sweep_key(study), metrics_version())


@dataclass
class _Run:
    """What we know of a run in MLflow."""

    id: str
    start: int  # milliseconds
    status: str
    tags: dict[str, str]
    is_ours: bool = False  # made by this process, which knows what it wrote


class Tracker:
    """Copies results of one study into MLflow."""

    def __init__(self, study: Study, files: Files) -> None:
        self.study = study
        self.store = Store(files)
        self.uri = tracking_uri(files)
        self._owners = owners(study, self.store)
        self._client = open_client(self.uri)
        follow_storage(self.uri, files)
        is_beside = _is_database(self.uri) and files.is_local  # MLflow's own choice is ./mlruns, wherever we are
        artifacts = folder_uri(files.path(ARTIFACTS, study.experiment.name)) if is_beside else None
        self.experiment_id = _experiment(self._client, study.experiment.name, artifacts)
        self._sweeps = self._find("sweep", SWEEP_TAG)
        self._cells = self._find("cell", CELL_TAG)

    def sync(self, results: Sequence[CellResult]) -> None:
        """MLflow holds every row of the results, and the final weights of cells that are done."""
        for result in results:
            if result.rows:
                self._sync_cell(result)

    def finish(self, cells: Sequence[Cell]) -> None:
        """Runs of cells that did not get to their end are closed, and so are the sweeps'; no cell has two runs.

        A request whose answer was lost may have been carried out later than it was repeated: so runs are found anew.
        """
        self._sweeps, self._cells = self._find("sweep", SWEEP_TAG), self._find("cell", CELL_TAG)
        for key in (cell.key for cell in cells):
            if key in self._cells and self._cells[key].status == "RUNNING":
                self._end(self._cells[key], "FAILED")
        whole = {key for key, run in self._cells.items() if run.status == "FINISHED"}
        for sweep in {owner.key for owner in self._owners.values()} & self._sweeps.keys():
            ok = all(key in whole for key, owner in self._owners.items() if owner.key == sweep)
            self._end(self._sweeps[sweep], "FINISHED" if ok else "FAILED")

    def sync_alone(self, result: CellResult) -> None:
        """MLflow holds this cell; its sweep's run is as it was before, or over if there was none."""
        sweep = self._owners[result.cell.key].key
        before = self._sweeps[sweep].status if sweep in self._sweeps else "FINISHED"
        self.sync([result])
        if before != "RUNNING":
            self._end(self._sweeps[sweep], before)

    @property
    def client(self) -> Any:
        """MLflow's, of where this study is tracked."""
        return self._client

    def run_id(self, cell_key: str) -> str:
        """The child run of a cell."""
        return self._cells[cell_key].id

    def model(self, result: CellResult, length: float = 1.0) -> Any:
        """The logged model that holds the cell's final weights at that length; identical weights are one model."""
        if result.weights is None:
            msg = f"{result.cell.name}: not finished; run the sweep first"
            raise UserError(msg)
        weights = None if length == 1 else final_weights(result, self.store, length)  # only its bytes say its digest
        digest = str(result.weights["digest"]) if weights is None else weights.digest
        if digest not in self._models:
            self._models[digest] = self._make_model(result, weights or final_weights(result, self.store), length)
        return self._models[digest]

    @cached_property
    def _models(self) -> dict[str, Any]:
        """Logged models by digest, one of each. One that was cut off while it was made is deleted."""
        models: dict[str, Any] = {}
        token = None
        while token is None or token:
            page = self._client.search_logged_models([self.experiment_id], page_token=token or None)
            token = page.token or ""
            for model in page:
                digest = model.tags.get(DIGEST_TAG)
                if digest is not None and (digest in models or not str(model.status).endswith("READY")):
                    self._client.delete_logged_model(model.model_id)
                elif digest is not None:
                    models[digest] = model
        return models

    def _sync_cell(self, result: CellResult) -> None:
        run = self._cells.get(result.cell.key) or self._make_cell(result.cell)
        if int(run.tags.get(ROWS_TAG, 0)) < len(result.rows):
            self._reopen(run)
            self._reopen(self._sweep_of(result.cell))
            self._log_rows(run, result)
        elif run.tags.get(METRICS_TAG) != metrics_version():
            self._log_rows(run, result)  # a run that is over stays so: it takes points, too
        if result.done and run.status != "FINISHED":
            self._log_final(run, result)
            self._end(run, "FINISHED")

    def _log_rows(self, run: _Run, result: CellResult) -> None:
        """The run has every row; a sign that it has follows them in the last request."""
        from mlflow.entities import Metric, Param, RunTag

        cell, count = result.cell, str(len(result.rows))
        said = {**cell.axes, "tasks": str(len(cell.setting.trainings)), **_preprocessing(cell)}
        params = [Param(name, within(value)) for name, value in said.items()]
        logged = self._num_logged(run, result)
        metrics = (
            self._outdated(run, result.rows[:logged])
            + [
                Metric(name, value, run.start + row.task, row.task)  # a repeated point is the same row
                for row in result.rows[logged:]
                for name, value in _metrics(row).items()
            ]
        )
        while len(metrics) > BATCH:
            self._client.log_batch(run.id, metrics=metrics[:BATCH])
            del metrics[:BATCH]
        tags = {ROWS_TAG: count, METRICS_TAG: metrics_version()}
        self._client.log_batch(run.id, metrics=metrics, params=params, tags=[RunTag(k, v) for k, v in tags.items()])
        run.tags |= tags

    def _num_logged(self, run: _Run, result: CellResult) -> int:
        """How many rows are there, as the run's tag says; or more, if a writer ended between rows and tag."""
        told = int(run.tags.get(ROWS_TAG, 0))
        if run.is_ours:
            return told
        name = list(_metrics(result.rows[0]))[-1]  # the last one of a row, so that whole rows are counted
        steps: list[int] = [point.step for point in self._client.get_metric_history(run.id, name)]
        return max(told, 1 + max(steps, default=-1))

    def _outdated(self, run: _Run, rows: Sequence[TaskResult]) -> list[Any]:
        """Points that rows of a run lack since metrics were added, or computed differently: the newest counts."""
        from mlflow.entities import Metric

        if not rows or run.tags.get(METRICS_TAG) == metrics_version():
            return []
        points, now = [], int(time.time() * 1000)
        for key in (metric_key(metric.title) for metric in METRICS.values()):
            history = sorted(self._client.get_metric_history(run.id, key), key=attrgetter("timestamp"))
            there = {point.step: point.value for point in history}
            for row in rows:
                value = _metrics(row).get(key)
                if value is not None and there.get(row.task) != value:
                    points.append(Metric(key, value, now if row.task in there else run.start + row.task, row.task))
        return points

    def _log_final(self, run: _Run, result: CellResult) -> None:
        from mlflow.entities import LoggedModelOutput

        model = self.model(result)
        self._client.log_dict(run.id, dict(result.weights or {}), "deployed/recipe.json")
        there = [] if run.is_ours else self._client.get_run(run.id).outputs.model_outputs
        if model.model_id not in [output.model_id for output in there]:
            self._client.log_outputs(run.id, [LoggedModelOutput(model.model_id, result.rows[-1].task)])

    def _make_model(self, result: CellResult, weights: FinalWeights, length: float) -> Any:
        cell = result.cell
        model = self._client.create_logged_model(
            experiment_id=self.experiment_id,
            name=f"deployed-{weights.digest[:12]}",
            source_run_id=self._cells[cell.key].id,
            tags={DIGEST_TAG: weights.digest, FLAVOR_TAG: "pyfunc", "time_ray.architecture": cell.setting.model.name},
            params={"model": within(cell.setting.model.label)},  # cells may share it: their axes are on their runs
            model_type="open_clip",
        )
        with tempfile.TemporaryDirectory() as folder:
            served = Served(result=result, weights=weights, datasets=self.study.datasets, length=length)
            write_model(Path(folder), served, model_id=model.model_id)
            self._client.log_model_artifacts(model.model_id, folder)
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _find(self, kind: str, tag: str) -> dict[str, _Run]:
        """Runs of this kind by what they are about. Of two the one in use or the first stands; the other is deleted."""
        found: list[Any] = []
        token = None
        while token is None or token:
            page = self._client.search_runs(
                [self.experiment_id], f"tags.`time_ray.kind` = '{kind}'", page_token=token or None
            )
            found += page
            token = page.token or ""
        runs: dict[str, _Run] = {}
        in_use = {ROWS_TAG, TOLD_TAG}
        order = [(in_use.isdisjoint(run.data.tags), run.info.start_time, run.info.run_id) for run in found]
        for _, run in sorted(zip(order, found, strict=True), key=itemgetter(0)):
            about = run.data.tags[tag]
            if about in runs:
                self._client.delete_run(run.info.run_id)
            else:
                runs[about] = _Run(run.info.run_id, run.info.start_time, run.info.status, dict(run.data.tags))
        return runs

    def _sweep_of(self, cell: Cell) -> _Run:
        """The run of the sweep that the cell belongs to, with all that is said of it."""
        sweep = self._owners[cell.key]
        if sweep.key not in self._sweeps:
            tags = {
                SWEEP_TAG: sweep.key,
                "time_ray.kind": "sweep",
                "mlflow.note.content": within(sweep.about),
                **{f"version.{name}": value for name, value in sweep.versions.items()},
            }
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.seconds))
            self._sweeps[sweep.key] = self._make_run(f"sweep of {len(sweep.cells)} cells, {when}", tags)
        run = self._sweeps[sweep.key]
        if TOLD_TAG not in run.tags:
            self._client.log_text(run.id, sweep.written, "experiment.yaml")
            self._client.log_dict(run.id, sweep.versions, "versions.json")
            self._client.set_tag(run.id, TOLD_TAG, "true")
            run.tags[TOLD_TAG] = "true"
        return run

    def _make_cell(self, cell: Cell) -> _Run:
        axes, sweep = cell.axes, self._owners[cell.key]
        tags = {
            SWEEP_TAG: sweep.key,
            CELL_TAG: cell.key,
            "time_ray.kind": "cell",
            "mlflow.parentRunId": self._sweep_of(cell).id,
        }
        others = [axes[name] for name in ("model", "budget", "seed") if name in sweep.varying]
        name = " ".join([f"{axes['init']}/{axes['deploy']}", axes["technique"], *others])
        self._cells[cell.key] = self._make_run(name, tags)
        return self._cells[cell.key]

    def _make_run(self, name: str, tags: Mapping[str, str]) -> _Run:
        start = int(time.time() * 1000)
        run = self._client.create_run(self.experiment_id, run_name=within(name, LENGTH), tags=tags, start_time=start)
        return _Run(run.info.run_id, start, "RUNNING", {}, is_ours=True)

    def _reopen(self, run: _Run) -> None:
        if run.status != "RUNNING":
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"

    def _end(self, run: _Run, status: str) -> None:
        if run.status != status:
            self._client.set_terminated(run.id, status)
            run.status = status


def _preprocessing(cell: Cell) -> dict[str, str]:
    """What the model's images go through, and its activation, as parameters of a run."""
    return {f"preprocess.{name}": str(value) for name, value in resolve(cell.setting.model).as_dict().items()}


def _metrics(row: TaskResult) -> Mapping[str, float]:
    scores = {metric_key(METRICS[name].title): value for name, value in row.scores.items()}
    return {
        **{key: round(value, 4) for key, value in scores.items() if value is not None},  # the UI shows all digits
        **{metric_key(name, "accuracy"): round(value, 4) for name, value in row.accuracy.items()},
        **{metric_key(stage, "seconds"): round(value, 4) for stage, value in row.seconds.items()},
    }


def experiment_id(uri: str, name: str) -> str | None:
    """The id of an experiment, if it has been tracked. StoreError if MLflow does not answer."""
    with answering(uri):
        found = open_client(uri).get_experiment_by_name(name)
    return str(found.experiment_id) if found else None


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """What MLflow or its database refuses while the block runs is a StoreError of one line."""
    settle()
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, ImportError) as error:
        text = " ".join(str(error).split())
        why = text if len(text) <= 200 else f"{text[:200]}..."
        how = "see that it answers and is whole, then run the same command again; the results are in the store"
        raise StoreError(f"MLflow at {hidden(uri)}: {hidden(why)}; {how}") from error


def settle() -> None:
    """The environment holds what MLflow reads of it, some of it when it is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(past_proxies(os.environ))


def open_client(uri: str) -> Any:
    """A client of MLflow; an SQLite file has its schema by then, and takes several writers."""
    settle()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    if (file := database_file(uri)) is not None:
        client.search_experiments(max_results=1)  # makes the schema
        with sqlite3.connect(file) as database:
            database.execute("PRAGMA journal_mode=WAL")  # kept in the file; several writers stop blocking each other
        database.close()
    return client


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        msg = f"MLflow: experiment '{name}' was deleted there; restore it, or give this one another name"
        raise UserError(msg)
    if found is not None:
        return str(found.experiment_id)
    tags = {VIEW_TAG: json.dumps(_cells_view())}
    try:
        return str(client.create_experiment(name, artifact_location=artifacts, tags=tags))
    except MlflowException:
        return str(client.get_experiment_by_name(name).experiment_id)  # another process was faster


def _cells_view() -> dict[str, Any]:
    """The UI's own form of a shared view: cells as a flat table, best first, axes and scores as columns."""
    axes = [f"params.`{name}`" for name in AXES]
    return {
        "searchFilter": "tags.`time_ray.kind` = 'cell'",
        "orderByKey": "metrics.`GM`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*axes, "metrics.`GM`", "metrics.`KA`", "metrics.`ZS`"],
        "runsPinned": [],
        "runsHidden": [],
        "runsExpanded": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "runsHiddenMode": "FIRST_10_RUNS",
    }
