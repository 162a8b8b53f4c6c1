"""MLflow: a run for each sweep, one for each cell over its seeds, one for each cell, and its final weights.

Results reach the store first and are copied here; every call may be repeated and doubles nothing: runs and models
are found again by tags, and a metric point is the same row whenever the same value is logged at the same step.
A cell has one run in an experiment, under the sweep that ran it first: a grid that grows adds only what is new.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from time_ray.analysis.search_verdict import search_lines
from time_ray.analysis.tuning_gain import gains
from time_ray.core.errors import UserError
from time_ray.core.experiment import AXES
from time_ray.core.grid import Cell
from time_ray.results import CellResult
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.tracking.cell_runs import CellRuns
from time_ray.tracking.client import answering, is_database, open_client, tracking_uri
from time_ray.tracking.host import Host
from time_ray.tracking.models import Models
from time_ray.tracking.moved_storage import ARTIFACTS, follow_storage, lies_in
from time_ray.tracking.patient import PatientClient
from time_ray.tracking.runs import Ending, Runs
from time_ray.tracking.summaries import Summaries
from time_ray.tracking.sweep_runs import SweepRuns
from time_ray.tracking.tracked_study import TrackedStudy
from time_ray.tracking.uris import database_file, folder_uri
from time_ray.tracking.verdict import verdict
from time_ray.tracking.views import KIND_TAG, view_tags

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
    """Copies results of one study into MLflow.

    Args:
        study: what is copied.
        files: the storage that it is copied from.
        verified: ids of runs and models whose files have been compared with their digests. Those of others are, before
            anything else, and what is damaged or lost is copied again; None: files are taken for what they were.

    """

    def __init__(self, study: Study, files: Files, verified: set[str] | None = None) -> None:
        self.study = study
        self.store = Store(files)
        self.uri = tracking_uri(files)
        self.client = PatientClient(open_client(self.uri, replace_damaged=lies_in(files, self.uri)))
        follow_storage(self.uri, files)
        is_beside = is_database(self.uri) and files.is_local  # MLflow's own choice is ./mlruns, wherever we are
        artifacts = folder_uri(files.path(ARTIFACTS, study.experiment.name)) if is_beside else None
        self._experiment = _experiment(self.client, study.experiment.name, artifacts)
        self.runs = Runs(self.client, str(self._experiment.experiment_id), verified)
        self._tracked = TrackedStudy(study, self.store, self.runs)
        self.models = Models(self.runs, self.store, study.datasets)
        self._sweeps = SweepRuns(self._tracked)
        self._cells = CellRuns(self._tracked, self.models, self._sweeps)
        self._summaries = Summaries(self._tracked, self._sweeps)
        self._show_views()

    def sync(self, results: Sequence[CellResult]) -> None:
        """MLflow holds every row of the results, and the final weights of cells that are done."""
        for result in results:
            if result.rows:
                self._cells.sync(result)

    def finish(self, results: Sequence[CellResult], ended: Ended = UNDISTURBED) -> None:
        """MLflow holds what the results mean together, every run is closed, and no cell has two.

        A request whose answer was lost may have been carried out later than it was repeated: so runs are found anew.

        Args:
            results: of all cells of the study.
            ended: how the sweep ended; a cell that is not done, and did not fail, was interrupted.

        """
        self.runs.look()
        for result in results:
            self._cells.close(result, ended.failed)
        lines = search_lines(self.study, self.store, ended.failed)
        found = verdict(results, self.store, lines, gains(self.study, self.store))
        self._summaries.state(results, found)
        self._sweeps.conclude(results, found)
        self.models.lead(found.ranked.winner if found.ranked else None)
        self._show_views()

    def lacking(self, results: Sequence[CellResult]) -> list[Cell]:
        """Cells that are done, and not so in MLflow, which is asked anew."""
        self.runs.look()
        return [result.cell for result in results if result.done and not self._cells.has(result)]

    def close(self, ended: Ended) -> None:
        """No run of the study is open; nothing else is copied."""
        for key, run in self.runs.cells.items():
            if key in self._tracked.owners and run.ending() is None:
                self.runs.end(run, "FAILED" if key in ended.failed else "KILLED")
        for key, run in self.runs.sweeps.items():
            if key in self._tracked.sweeps and run.ending() is None:
                self.runs.end(run, "FAILED" if ended.failed and not ended.interrupted else "KILLED")

    def sync_alone(self, result: CellResult) -> None:
        """MLflow holds this cell; its sweep's run is as it was before, or over if there was none."""
        before = self.runs.sweeps.get(self._tracked.owners[result.cell.key].key)
        ending: Ending | None = "FINISHED" if before is None else before.ending()
        self.sync([result])
        if ending is not None:
            self.runs.end(self._sweeps.of(result.cell), ending)

    def log_host(self, host: Host) -> None:
        """The sweep's run has the samples of its machine that wait."""
        run = self._sweeps.own
        if samples := host.waiting(run.start):
            self.runs.log(run, samples)
            host.taken()

    def log_report(self, path: Path) -> None:
        """The file lies in the sweep's run, as `report.html`. UserError if MLflow knows no such sweep."""
        if not self.runs.sweeps:
            raise _not_there(self.study)
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copyfile(path, Path(folder, REPORT))
            self.client.log_artifact(self._sweeps.own.id, str(copy))

    def run_id(self, cell_key: str) -> str:
        """The run of a cell."""
        return self.runs.cells[cell_key].id

    def _show_views(self) -> None:
        """The experiment has our views in their present form."""
        differ = self._tracked.differ
        axes = [axis for axis in AXES if axis in differ.axes]
        searched = self.study.experiment.search is not None
        by = "GM" if self.study.datasets.evaluation else "KA"
        views = view_tags(axes, sorted(differ.settings), summaries=bool(self.runs.summaries), searched=searched, by=by)
        for key, value in (KIND_TAG, *views.items()):
            if self._experiment.tags.get(key) != value:
                self.client.set_experiment_tag(self.runs.experiment_id, key, value)
                self._experiment.tags[key] = value


def log_report(study: Study, files: Files, path: Path) -> None:
    """The file lies in the sweep's run in MLflow, as `report.html`.

    Raises:
        UserError: MLflow knows no such sweep.
        StoreError: it does not answer, or refuses.

    """
    database = database_file(uri := tracking_uri(files))
    if database is not None and not database.exists():
        raise _not_there(study)
    with answering(uri):
        Tracker(study, files).log_report(path)


def _not_there(study: Study) -> UserError:
    return UserError(f"MLflow: sweep '{study.experiment.name}' is not there yet; copy it there with: time-ray sync")


def _experiment(client: PatientClient, name: str, artifacts: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        msg = f"MLflow: experiment '{name}' was deleted there; restore it, or give this one another name"
        raise UserError(msg)
    if found is not None:
        return found

    def find() -> Any:
        return client.get_experiment_by_name(name)

    try:
        client.made(lambda asked: asked.create_experiment(name, artifact_location=artifacts), find)
    except MlflowException:
        if find() is None:  # unless another process was faster
            raise
    return find()
