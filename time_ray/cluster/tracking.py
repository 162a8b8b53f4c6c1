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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from time_ray.core.errors import UserError
from time_ray.core.experiment import AXES
from time_ray.core.keys import key_of
from time_ray.results import CellResult, TaskResult
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.version import provenance

if TYPE_CHECKING:
    from mlflow.entities import Run

SWEEP_TAG = "time_ray.sweep"
CELL_TAG = "time_ray.cell"
ROWS_TAG = "time_ray.rows"  # how many rows of the cell were logged
DIGEST_TAG = "time_ray.digest"
ALIAS = "best-in-time"
VIEW = "cells"  # the view of an experiment that `time-ray ui` opens


def tracking_uri(files: Files) -> str:
    """Where results are tracked: MLFLOW_TRACKING_URI, else an SQLite file under a local storage root."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if not files.is_local:
        msg = f"storage: {files.shown} cannot hold an SQLite file; set MLFLOW_TRACKING_URI to an MLflow server"
        raise UserError(msg)
    return f"sqlite:///{files.path('mlflow.db')}"


def sweep_key(study: Study) -> str:
    """The name under which a sweep's runs are found again: its cells."""
    return key_of("sweep", sorted(cell.key for cell in study.cells))


class Tracker:
    """Copies results of one study into MLflow."""

    def __init__(self, study: Study, files: Files) -> None:
        self.study = study
        self.store = Store(files)
        self.uri = tracking_uri(files)
        self._sweep = sweep_key(study)
        self._client = _client(self.uri)
        artifacts = f"file://{files.path('mlartifacts')}" if self.uri.startswith("sqlite:") and files.is_local else None
        self.experiment_id = _experiment(self._client, study.experiment.name, artifacts)
        self._parent = self._find_parent()
        self._children = self._find_children()
        self._varying = _varying([cell.axes for cell in study.cells])

    def start(self) -> None:
        """The sweep's own run goes on, if there is one already."""
        if self._parent is not None:
            self._client.update_run(self._parent.info.run_id, status="RUNNING")

    def sync(self, results: Sequence[CellResult]) -> None:
        """MLflow holds every row of the results, and the final weights of cells that are done."""
        for result in results:
            if result.rows:
                self._sync_cell(result)

    def finish(self, *, ok: bool) -> None:
        """The sweep's own run is over, if there is one, and so are the runs of cells that did not get to their end."""
        for cell in self.study.cells:
            run = self._children.get(cell.key)
            if run is not None and run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "FAILED")
        self._end_parent(ok=ok)

    def sync_alone(self, result: CellResult) -> None:
        """MLflow holds this cell, outside of any sweep: a run that had to be made for the sweep is not left running."""
        before = self._parent
        self.sync([result])
        if before is None:
            self._end_parent(ok=True)

    def _end_parent(self, *, ok: bool) -> None:
        if self._parent is not None:
            self._client.set_terminated(self._parent.info.run_id, "FINISHED" if ok else "FAILED")

    def run_id(self, cell_key: str) -> str:
        """The child run of a cell."""
        return str(self._children[cell_key].info.run_id)

    def model(self, result: CellResult) -> Any:
        """The logged model that holds the cell's final weights; identical weights are one model."""
        entry = result.weights
        if entry is None:
            msg = f"{result.cell.name}: not finished; run the sweep first"
            raise UserError(msg)
        found = self._client.search_logged_models(
            experiment_ids=[self.experiment_id], filter_string=f"tags.`{DIGEST_TAG}` = '{entry['digest']}'"
        )
        whole = [model for model in found if str(model.status).endswith("READY")]
        return whole[0] if whole else self._make_model(result)

    def _sync_cell(self, result: CellResult) -> None:
        run = self._children.get(result.cell.key) or self._make_child(result)
        logged = int(run.data.tags.get(ROWS_TAG, 0))
        if logged < len(result.rows):
            self._log_rows(run, result.rows[logged:], total=len(result.rows))
        if result.done and run.info.status != "FINISHED":
            self._log_final(run, result)
            self._client.set_terminated(run.info.run_id, "FINISHED")
        self._children[result.cell.key] = self._client.get_run(run.info.run_id)

    def _log_rows(self, run: "Run", rows: Sequence[TaskResult], *, total: int) -> None:
        from mlflow.entities import Metric, RunTag

        start = run.info.start_time  # a time that depends on the step alone makes a repeated point the same row
        metrics = [Metric(n, v, start + row.task, row.task) for row in rows for n, v in _metrics(row).items()]
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(run.info.run_id, metrics=metrics[first : first + 1000])
        self._client.log_batch(run.info.run_id, tags=[RunTag(ROWS_TAG, str(total))])

    def _log_final(self, run: "Run", result: CellResult) -> None:
        from mlflow.entities import LoggedModelOutput

        model = self.model(result)
        self._client.log_dict(run.info.run_id, dict(result.weights or {}), "deployed/recipe.json")
        self._client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, result.rows[-1].task)])

    def _make_model(self, result: CellResult) -> Any:
        entry, cell = dict(result.weights or {}), result.cell
        data = self.store.payload(result.final_key, entry)
        if data is None:
            msg = f"{cell.name}: its final weights were damaged and set aside; run the sweep again"
            raise UserError(msg)
        model = self._client.create_logged_model(
            experiment_id=self.experiment_id,
            name=f"deployed-{str(entry['digest'])[:12]}",
            source_run_id=self._children[cell.key].info.run_id,
            tags={DIGEST_TAG: str(entry["digest"]), "time_ray.architecture": cell.setting.model.name},
            params=cell.axes,
            model_type="open_clip",
        )
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "open_clip_model.safetensors").write_bytes(data)
            Path(folder, "recipe.json").write_text(json.dumps(entry, indent=1), encoding="utf-8")
            self._client.log_model_artifacts(model.model_id, folder)
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _find_parent(self) -> "Run | None":
        tag = f"tags.`{SWEEP_TAG}` = '{self._sweep}' and tags.`time_ray.kind` = 'sweep'"
        found = self._client.search_runs([self.experiment_id], tag, order_by=["attributes.start_time ASC"])
        return found[0] if found else None

    def _make_parent(self) -> "Run":
        experiment = self.study.experiment
        tags = {
            SWEEP_TAG: self._sweep,
            "time_ray.kind": "sweep",
            "mlflow.note.content": experiment.about,
            **{f"version.{name}": value for name, value in provenance().items()},
        }
        name = f"sweep of {len(self.study.cells)} cells, {time.strftime('%Y-%m-%d %H:%M')}"
        run = self._client.create_run(self.experiment_id, run_name=name, tags=tags)
        text = yaml.safe_dump(experiment.written(), sort_keys=False, allow_unicode=True)
        self._client.log_text(run.info.run_id, text, "experiment.yaml")
        self._client.log_dict(run.info.run_id, provenance(), "versions.json")
        return run

    def _find_children(self) -> dict[str, "Run"]:
        children: dict[str, Run] = {}
        token = None
        while True:
            found = self._client.search_runs(
                [self.experiment_id],
                "tags.`time_ray.kind` = 'cell'",
                order_by=["attributes.start_time DESC"],  # of two runs of a cell the first one stands
                page_token=token,
            )
            children.update({run.data.tags[CELL_TAG]: run for run in found})
            token = found.token
            if not token:
                return children

    def _make_child(self, result: CellResult) -> "Run":
        from mlflow.entities import Param

        if self._parent is None:
            self._parent = self._make_parent()
        axes = result.cell.axes
        tags = {
            SWEEP_TAG: self._sweep,
            CELL_TAG: result.cell.key,
            "time_ray.kind": "cell",
            "mlflow.parentRunId": self._parent.info.run_id,
        }
        others = [axes[name] for name in ("model", "budget", "seed") if name in self._varying]
        name = " ".join([f"{axes['init']}/{axes['deploy']}", axes["technique"], *others])
        run = self._client.create_run(self.experiment_id, run_name=name, tags=tags, start_time=int(time.time() * 1000))
        tasks = str(len(result.cell.setting.trainings))
        self._client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in {**axes, "tasks": tasks}.items()])
        self._children[result.cell.key] = run
        return run


def _varying(rows: Sequence[Mapping[str, str]]) -> set[str]:
    """The axes on which these cells differ."""
    return {name for row in rows for name in row if row[name] != rows[0][name]}


def _metrics(row: TaskResult) -> Mapping[str, float]:
    scores = {"KA": row.scores.ka, "ZS": row.scores.zs, "GM": row.scores.gm}
    return {
        **{name: round(value, 4) for name, value in scores.items() if value is not None},  # the UI shows all digits
        **{f"accuracy/{name}": round(value, 4) for name, value in row.accuracy.items()},
        **{f"seconds/{stage}": round(value, 4) for stage, value in row.seconds.items()},
    }


def register_best(tracker: Tracker, result: CellResult) -> str:
    """The cell's weights are the registered model's newest version, under the alias `best-in-time`."""
    from mlflow.exceptions import MlflowException

    client = tracker._client  # noqa: SLF001 same file, same concept
    name = f"time-ray-{tracker.study.experiment.name}"
    tracker.sync_alone(result)
    model = tracker.model(result)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((v for v in versions if v.tags.get(DIGEST_TAG) == model.tags[DIGEST_TAG]), None)
    if version is None:
        version = client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=tracker.run_id(result.cell.key),
            model_id=model.model_id,
            tags={DIGEST_TAG: model.tags[DIGEST_TAG], **result.cell.axes},
        )
    client.set_registered_model_alias(name, ALIAS, version.version)
    return f"models:/{name}@{ALIAS}"


def experiment_id(uri: str, name: str) -> str | None:
    """The id of an experiment, if it has been tracked."""
    found = _client(uri).get_experiment_by_name(name)
    return str(found.experiment_id) if found else None


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # read at import
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    if uri.startswith("sqlite:///"):
        client.search_experiments(max_results=1)  # makes the schema
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
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
    tags = {f"mlflow.sharedViewState.{VIEW}": json.dumps(_cells_view())}
    try:
        return str(client.create_experiment(name, artifact_location=artifacts and f"{artifacts}/{name}", tags=tags))
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
