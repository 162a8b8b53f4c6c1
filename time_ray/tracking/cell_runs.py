"""The run of a cell: a row of points after every task, and once it is finished its weights, inputs and figures."""

import time
from collections.abc import Mapping
from typing import Any

from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.results import CellResult
from time_ray.tracking import points
from time_ray.tracking.models import Models
from time_ray.tracking.pictures import FIGURES_TAG, log_figures, of_summary
from time_ray.tracking.places import shown_key
from time_ray.tracking.runs import PARENT_TAG, ROWS_TAG, SWEEP_TAG, Run
from time_ray.tracking.sweep_runs import SweepRuns
from time_ray.tracking.tracked_study import TrackedStudy

METRICS_TAG = "time_ray.metrics"  # with what points and parameters the cell was logged
WHOLE_TAG = "time_ray.whole"  # with what else
FAILURE_TAG = "time_ray.failure"  # why a cell failed
DEVICE_TAG = "device"  # on what its experts were trained
_WHOLE = "2"  # bump when finished cells have more than their points, and older ones shall get it


class CellRuns:
    """The runs of a study's cells."""

    def __init__(self, tracked: TrackedStudy, models: Models, sweeps: SweepRuns) -> None:
        self._tracked = tracked
        self._runs = tracked.runs
        self._client = tracked.runs.client
        self._models = models
        self._sweeps = sweeps
        self._version = key_of(points.points_version(), *(sorted(names) for names in tracked.differ))

    def sync(self, result: CellResult) -> None:
        """The cell's run has every row, and all else if it is done."""
        run = self._runs.cells.get(result.cell.key) or self._make(result.cell)
        self._runs.distrust(run, {"": [WHOLE_TAG, FIGURES_TAG]})
        if int(run.tags.get(ROWS_TAG, 0)) < len(result.rows):
            self._runs.reopen(run)
            self._runs.reopen(self._sweeps.of(result.cell))
            self._log_rows(run, result)
        elif run.tags.get(METRICS_TAG) != self._version:
            self._log_rows(run, result)  # a run that is over stays so: it takes points, too
        if result.done and (run.status != "FINISHED" or run.tags.get(WHOLE_TAG) != _WHOLE):
            self._log_final(run, result)
            self._runs.end(run, "FINISHED")
        elif result.done and self._runs.verified is not None:
            self._models.of(result)

    def has(self, result: CellResult) -> bool:
        """Whether the run of a cell that is done is there, over, and has all that it should have."""
        run = self._runs.cells.get(result.cell.key)
        if run is None or run.status != "FINISHED" or int(run.tags.get(ROWS_TAG, 0)) < len(result.rows):
            return False
        return run.tags.get(METRICS_TAG) == self._version and run.tags.get(WHOLE_TAG) == _WHOLE

    def close(self, result: CellResult, failed: Mapping[str, str]) -> None:
        """The cell's run is over; a cell that failed has one, and it says why, unless it was done by others since."""
        cell = result.cell
        run = self._runs.cells.get(cell.key)
        if cell.key in failed and not result.done:
            run = run or self._make(cell)
            self._runs.log(run, params=self._tracked.params(cell), tags={FAILURE_TAG: failed[cell.key]})
            self._runs.end(run, "FAILED")
        elif run is not None and run.ending() is None:
            self._runs.end(run, "KILLED")

    def _make(self, cell: Cell) -> Run:
        tags = {SWEEP_TAG: self._tracked.owners[cell.key].key, PARENT_TAG: self._sweeps.of(cell).id}
        return self._runs.make("cell", cell.key, self._tracked.name(cell), tags)

    def _log_rows(self, run: Run, result: CellResult) -> None:
        """The run has every row; a sign that it has follows them in the last request."""
        self._runs.rename(run, self._tracked.name(result.cell))
        logged = self._num_logged(run, result)
        metrics = self._added(run, result, logged)
        metrics += [point.metric(run.start) for point in points.of_rows(result, result.rows[logged:])]
        devices = dict.fromkeys(row.device for row in result.rows if row.device)
        tags = {ROWS_TAG: str(len(result.rows)), METRICS_TAG: self._version}
        if devices:
            tags[DEVICE_TAG] = ", ".join(devices)
        self._runs.log(run, metrics, self._tracked.params(result.cell), tags)

    def _num_logged(self, run: Run, result: CellResult) -> int:
        """How many rows are there, as the run's tag says; or more, if a writer ended between rows and tag."""
        told = int(run.tags.get(ROWS_TAG, 0))
        if run.is_ours or told >= len(result.rows):
            return told
        steps: list[int] = [point.step for point in self._client.get_metric_history(run.id, points.TASKS_DONE)]
        return max(told, 1 + max(steps, default=-1))

    def _added(self, run: Run, result: CellResult, logged: int) -> list[Any]:
        """What an earlier version did not log of the rows that it logged; of two scores at a task the newest counts."""
        rows = result.rows[:logged]
        if not rows or run.tags.get(METRICS_TAG) == self._version:
            return []
        now = int(time.time() * 1000)
        scores = points.outdated(rows, lambda key: self._client.get_metric_history(run.id, key))
        changed = [
            point.metric(now - point.step if is_other else run.start, **self._model_of(point, result))
            for point, is_other in scores
        ]
        return changed + [point.metric(run.start) for point in points.added(result, rows)]

    def _model_of(self, point: points.Point, result: CellResult) -> dict[str, str]:
        """The final scores are those of a model, too."""
        is_final = result.done and point.step == result.rows[-1].task
        return {"model_id": self._models.of(result).model_id} if is_final else {}

    def _log_final(self, run: Run, result: CellResult) -> None:
        """The run has all else that a finished cell has; a sign that it has follows."""
        self._models.log_output(run, result)
        self._client.log_inputs(run.id, self._tracked.inputs)
        log_figures(self._runs, run, of_summary([result]), shown_key([result]))
        self._runs.untag(run, FAILURE_TAG)
        self._runs.tag(run, {WHOLE_TAG: _WHOLE})
