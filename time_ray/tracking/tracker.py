"""MLflow: a run for each sweep, one for each cell over its seeds, one for each cell, and its final weights.

Results reach the store first and are copied here; every call may be repeated and doubles nothing: runs and models
are found again by tags, and a metric point is the same row whenever the same value is logged at the same step.
A cell has one run in an experiment, under the sweep that ran it first: a grid that grows adds only what is new.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from time_ray.core.errors import UserError
from time_ray.core.experiment import AXES
from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.rates import read_gflops
from time_ray.results import CellResult
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.tracking import params, points, summaries
from time_ray.tracking.client import answering, is_database, open_client, tracking_uri
from time_ray.tracking.description import description
from time_ray.tracking.history import Started, owners, started, sweep_key
from time_ray.tracking.host import Host
from time_ray.tracking.inputs import dataset_inputs
from time_ray.tracking.models import Models
from time_ray.tracking.moved_storage import ARTIFACTS, follow_storage
from time_ray.tracking.names import TAG, within
from time_ray.tracking.pictures import log_figures, of_summary, of_sweep
from time_ray.tracking.runs import PARENT_TAG, ROWS_TAG, SWEEP_TAG, TOLD_TAG, Ending, Run, Runs
from time_ray.tracking.settings import differing
from time_ray.tracking.uris import folder_uri
from time_ray.tracking.verdict import Verdict, verdict
from time_ray.tracking.views import KIND_TAG, view_tags

METRICS_TAG = "time_ray.metrics"  # with what points and parameters the cell was logged
WHOLE_TAG = "time_ray.whole"  # with what else
FAILURE_TAG = "time_ray.failure"  # why a cell failed
NOTE_TAG = "mlflow.note.content"
OUR_NOTE_TAG = "time_ray.note"  # the digest of the description that we wrote last
WHOLE_VERSION = "2"  # bump when finished cells have more than their points, and older ones shall get it
REPORT = "report.html"


@dataclass(frozen=True)
class Ended:
    """How a sweep ended.

    Attributes:
        failed: cells that failed, by key, and why.
        interrupted: it was stopped before all were done.

    """

    failed: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False


UNDISTURBED = Ended()


class Tracker:
    """Copies results of one study into MLflow."""

    def __init__(self, study: Study, files: Files) -> None:
        self.study = study
        self.store = Store(files)
        self.uri = tracking_uri(files)
        self._owners = owners(study, self.store)
        self._differ = differing(started(study.experiment.name, self.store))
        self.client = open_client(self.uri)
        follow_storage(self.uri, files)
        is_beside = is_database(self.uri) and files.is_local  # MLflow's own choice is ./mlruns, wherever we are
        artifacts_uri = folder_uri(files.path(ARTIFACTS, study.experiment.name)) if is_beside else None
        self._experiment = _experiment(self.client, study.experiment.name, artifacts_uri)
        self.runs = Runs(self.client, self.experiment_id)
        self.models = Models(self.runs, self.store)
        self._show_views()

    @property
    def experiment_id(self) -> str:
        """MLflow's."""
        return str(self._experiment.experiment_id)

    def sync(self, results: Sequence[CellResult]) -> None:
        """MLflow holds every row of the results, and the final weights of cells that are done."""
        for result in results:
            if result.rows:
                self._sync_cell(result)

    def finish(self, results: Sequence[CellResult], ended: Ended = UNDISTURBED) -> None:
        """MLflow holds what the results mean together, every run is closed, and no cell has two.

        A request whose answer was lost may have been carried out later than it was repeated: so runs are found anew.

        Args:
            results: of all cells of the study.
            ended: how the sweep ended; a cell that is not done, and did not fail, was interrupted.

        """
        self.runs.look()
        self._close_cells(results, ended)
        found = verdict(results, self.store)
        self._place_cells(results, found)
        for sweep in {owner.key: owner for owner in self._owners.values()}.values():
            self._conclude(sweep, results, found)
        self.models.lead(found.ranked.winner if found.ranked else None)
        self._show_views()

    def close(self, ended: Ended) -> None:
        """No run of the study is open; nothing else is copied."""
        for key in self._owners.keys() & self.runs.cells.keys():
            if self.runs.cells[key].ending() is None:
                self.runs.end(self.runs.cells[key], "FAILED" if key in ended.failed else "KILLED")
        for key in {owner.key for owner in self._owners.values()} & self.runs.sweeps.keys():
            if self.runs.sweeps[key].ending() is None:
                self.runs.end(self.runs.sweeps[key], "KILLED")

    def sync_alone(self, result: CellResult) -> None:
        """MLflow holds this cell; its sweep's run is as it was before, or over if there was none."""
        before = self.runs.sweeps.get(self._owners[result.cell.key].key)
        ending: Ending | None = "FINISHED" if before is None else before.ending()
        self.sync([result])
        if ending is not None:
            self.runs.end(self._sweep_of(result.cell), ending)

    def log_host(self, host: Host) -> None:
        """The sweep's run has the samples of its machine that wait."""
        run = self._own_sweep
        if samples := host.waiting(run.start):
            self.runs.log(run, samples)
            host.taken()

    def log_report(self, path: Path) -> None:
        """The file lies in the sweep's run, as `report.html`."""
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(path, Path(folder, REPORT))
            self.client.log_artifact(self._own_sweep.id, str(copy))

    def run_id(self, cell_key: str) -> str:
        """The run of a cell."""
        return self.runs.cells[cell_key].id

    @property
    def _own_sweep(self) -> Run:
        """The run of the sweep that has exactly these cells; else of the first that has some of them."""
        own = sweep_key(self.study)
        cells = self.study.everything
        return self._sweep_of(next((cell for cell in cells if self._owners[cell.key].key == own), cells[0]))

    @cached_property
    def _several_seeds(self) -> bool:
        return len({cell.setting.seed for cell in self.study.everything}) > 1

    # one cell

    def _sync_cell(self, result: CellResult) -> None:
        run = self.runs.cells.get(result.cell.key) or self._make_cell(result.cell)
        if int(run.tags.get(ROWS_TAG, 0)) < len(result.rows):
            self.runs.reopen(run)
            self.runs.reopen(self._sweep_of(result.cell))
            self._log_rows(run, result)
        elif run.tags.get(METRICS_TAG) != self._version:
            self._log_rows(run, result)  # a run that is over stays so: it takes points, too
        if result.done and (run.status != "FINISHED" or run.tags.get(WHOLE_TAG) != WHOLE_VERSION):
            self._log_final(run, result)
            self.runs.end(run, "FINISHED")

    def _make_cell(self, cell: Cell) -> Run:
        sweep = self._sweep_of(cell)
        tags = {SWEEP_TAG: self._owners[cell.key].key, PARENT_TAG: sweep.id}
        return self.runs.make("cell", cell.key, params.cell_name(cell, self.study.experiment, self._differ), tags)

    @cached_property
    def _version(self) -> str:
        return key_of(points.points_version(), *(sorted(names) for names in self._differ))

    def _log_rows(self, run: Run, result: CellResult) -> None:
        """The run has every row; a sign that it has follows them in the last request."""
        cell = result.cell
        self.runs.rename(run, params.cell_name(cell, self.study.experiment, self._differ))
        logged = self._num_logged(run, result)
        metrics = self._added(run, result, logged)
        metrics += [point.metric(run.start) for point in points.of_rows(result, result.rows[logged:])]
        tags = {ROWS_TAG: str(len(result.rows)), METRICS_TAG: self._version}
        self.runs.log(run, metrics, self._params(cell), tags)

    def _params(self, cell: Cell) -> dict[str, str]:
        return params.of_cell(cell, self.study.experiment, self._differ, self._step_gflops[cell.setting.model.name])

    @cached_property
    def _step_gflops(self) -> Mapping[str, float | None]:
        """By architecture; those who train count them before they score anything."""
        batch_size = self.study.experiment.training.batch_size
        names = {spec.name for spec in self.study.experiment.model}
        return {name: read_gflops(self.store, name, batch_size) for name in names}

    def _num_logged(self, run: Run, result: CellResult) -> int:
        """How many rows are there, as the run's tag says; or more, if a writer ended between rows and tag."""
        told = int(run.tags.get(ROWS_TAG, 0))
        if run.is_ours or told >= len(result.rows):
            return told
        steps: list[int] = [point.step for point in self.client.get_metric_history(run.id, points.TASKS_DONE)]
        return max(told, 1 + max(steps, default=-1))

    def _added(self, run: Run, result: CellResult, logged: int) -> list[Any]:
        """What an earlier version did not log of the rows that it logged; of two scores at a task the newest counts."""
        rows = result.rows[:logged]
        if not rows or run.tags.get(METRICS_TAG) == self._version:
            return []
        now = int(time.time() * 1000)
        scores = points.outdated(rows, lambda key: self.client.get_metric_history(run.id, key))
        changed = [
            point.metric(now - point.step if is_other else run.start, **self._model_of(point, result))
            for point, is_other in scores
        ]
        return changed + [point.metric(run.start) for point in points.added(result, rows)]

    def _model_of(self, point: points.Point, result: CellResult) -> dict[str, str]:
        """The final scores are those of a model, too."""
        is_final = result.done and point.step == result.rows[-1].task
        return {"model_id": self.models.of(result).model_id} if is_final else {}

    def _log_final(self, run: Run, result: CellResult) -> None:
        """The run has all else that a finished cell has; a sign that it has follows."""
        self.models.log_output(run, result)
        self.client.log_inputs(run.id, self._inputs)
        log_figures(self.runs, run, of_summary([result]), summaries.shown_key([result]))
        self.runs.untag(run, FAILURE_TAG)
        self.runs.tag(run, {WHOLE_TAG: WHOLE_VERSION})

    @cached_property
    def _inputs(self) -> list[Any]:
        return dataset_inputs(self.study.datasets)

    # what cells are together

    def _close_cells(self, results: Sequence[CellResult], ended: Ended) -> None:
        """Runs of cells that did not get to their end are closed; one that failed has a run, and says why."""
        for result in results:
            key = result.cell.key
            why = ended.failed.get(key)
            run = self.runs.cells.get(key)
            if why is not None:
                run = run or self._make_cell(result.cell)
                self.runs.log(run, params=self._params(result.cell), tags={FAILURE_TAG: why})
                self.runs.end(run, "FAILED")
            elif run is not None and run.ending() is None:
                self.runs.end(run, "KILLED")

    def _place_cells(self, results: Sequence[CellResult], found: Verdict) -> None:
        """Cells say how they stand; with several seeds they hang under the summary of these."""
        for place, each in summaries.places(results, self.study).items():
            done = [result for result in each if result.done]
            if done and self._several_seeds:
                self._summarise(place, each, done, found)
            for result in done:
                if run := self.runs.cells.get(result.cell.key):
                    self.runs.state(run, found.of_cells([result]), found.tags_of([result]))

    def _summarise(self, place: str, each: Sequence[CellResult], done: Sequence[CellResult], found: Verdict) -> None:
        cell = done[0].cell
        first = min((self._owners[result.cell.key] for result in each), key=lambda sweep: (sweep.seconds, sweep.key))
        sweep = self._sweep_run(first)
        name = params.summary_name(cell, self.study.experiment, self._differ)
        common = {key: value for key, value in self._params(cell).items() if key != "seed"}
        tags = {SWEEP_TAG: first.key, PARENT_TAG: sweep.id}
        run = summaries.log_summary(self.runs, place, done, name, common, tags)
        log_figures(self.runs, run, of_summary(done), summaries.shown_key(done))
        self.runs.tag(run, {PARENT_TAG: sweep.id})
        self.runs.state(run, {**found.of_cells(done), "seeds": float(len(done))}, found.tags_of(done))
        children = [self.runs.cells[result.cell.key] for result in each if result.cell.key in self.runs.cells]
        summaries.adopt(self.runs, run, iter(children))
        self.runs.end(run, _ending([child.status for child in children], whole=len(done) == len(each)))

    # sweeps

    def _sweep_of(self, cell: Cell) -> Run:
        return self._sweep_run(self._owners[cell.key])

    def _sweep_run(self, sweep: Started) -> Run:
        """The run of a sweep, with all that is said of it from the start."""
        run = self.runs.sweeps.get(sweep.key)
        if run is None:
            versions = {f"version.{name}": value for name, value in sweep.versions.items()}
            tags = {NOTE_TAG: sweep.about, OUR_NOTE_TAG: _digest(sweep.about), **versions}
            run = self.runs.make("sweep", sweep.key, params.sweep_name(sweep), tags)
        if TOLD_TAG not in run.tags:
            self.client.log_text(run.id, sweep.written, "experiment.yaml")
            self.client.log_dict(run.id, sweep.versions, "versions.json")
            self.runs.tag(run, {TOLD_TAG: "true"})
        if run.tags.get(WHOLE_TAG) != WHOLE_VERSION:
            seeds = [cell.setting.seed for cell in self.study.everything if cell.key in sweep.cells]
            self.client.log_inputs(run.id, self._inputs)
            self.runs.log(run, params=params.of_sweep(sweep, seeds), tags={WHOLE_TAG: WHOLE_VERSION})
        return run

    def _conclude(self, sweep: Started, results: Sequence[CellResult], everything: Verdict) -> None:
        """The sweep's run says what its cells have found, and is over; unless some of them are not in this study."""
        run = self.runs.sweeps.get(sweep.key)
        own = [result for result in results if result.cell.key in sweep.cells]
        if run is None:
            return
        if len(own) == len(sweep.cells):
            found = everything if len(own) == len(results) else verdict(own, self.store)
            self._tell(sweep, run, found)
        statuses = [self.runs.cells[key].status for key in sweep.cells & self.runs.cells.keys()]
        whole = statuses.count("FINISHED") == len(sweep.cells)
        self.runs.end(run, _ending(statuses, whole=whole))

    def _tell(self, sweep: Started, run: Run, found: Verdict) -> None:
        failed = sum(self.runs.cells[key].status == "FAILED" for key in sweep.cells & self.runs.cells.keys())
        winner = found.ranked.leader.contender.axes if found.ranked else {}
        best = {f"best.{axis}": winner[axis] for axis in AXES if axis in winner}
        self.runs.state(run, {**found.of_sweep(), "cells_failed": float(failed)}, best)
        shown = summaries.shown_key([result for result in found.results if result.done])
        log_figures(self.runs, run, of_sweep(found), shown)
        self._describe(run, description(sweep, found, self.experiment_id, run))

    def _describe(self, run: Run, text: str) -> None:
        """The run has this description, unless a person has written another."""
        text = within(text, TAG)
        is_ours = run.tags.get(OUR_NOTE_TAG, _digest(run.tags.get(NOTE_TAG, ""))) == _digest(run.tags.get(NOTE_TAG, ""))
        if is_ours:
            self.runs.tag(run, {NOTE_TAG: text, OUR_NOTE_TAG: _digest(text)})

    def _show_views(self) -> None:
        """The experiment has our views in their present form."""
        axes = [axis for axis in AXES if axis in self._differ.axes]
        by = "GM" if self.study.datasets.evaluation else "KA"
        keys = sorted(self._differ.settings)
        tags = dict([KIND_TAG]) | view_tags(axes, keys, summaries=bool(self.runs.summaries), by=by)
        for key, value in tags.items():
            if self._experiment.tags.get(key) != value:
                self.client.set_experiment_tag(self.experiment_id, key, value)
                self._experiment.tags[key] = value


def log_report(study: Study, files: Files, path: Path) -> None:
    """The file lies in the sweep's run in MLflow, as `report.html`. StoreError if MLflow refuses."""
    with answering(tracking_uri(files)):
        Tracker(study, files).log_report(path)


def _ending(statuses: Sequence[str], *, whole: bool) -> Ending:
    """Of what has several parts."""
    if whole:
        return "FINISHED"
    return "FAILED" if "FAILED" in statuses else "KILLED"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _experiment(client: Any, name: str, artifacts_uri: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        msg = f"MLflow: experiment '{name}' was deleted there; restore it, or give this one another name"
        raise UserError(msg)
    if found is not None:
        return found
    try:
        client.create_experiment(name, artifact_location=artifacts_uri)
    except MlflowException:
        if client.get_experiment_by_name(name) is None:  # unless another process was faster
            raise
    return client.get_experiment_by_name(name)
