"""The run of a sweep: from the start what was asked for, and in the end what was found."""

import hashlib
import json
from collections.abc import Sequence

from time_ray.core.grid import Cell
from time_ray.results import CellResult
from time_ray.tracking import params
from time_ray.tracking.description import description
from time_ray.tracking.history import Started, sweep_key
from time_ray.tracking.names import TAG, within
from time_ray.tracking.pictures import FIGURES_TAG, log_figures, of_sweep
from time_ray.tracking.places import shown_key
from time_ray.tracking.runs import TOLD_TAG, Ending, Run
from time_ray.tracking.tracked_study import TrackedStudy
from time_ray.tracking.verdict import Verdict, verdict

NOTE_TAG = "mlflow.note.content"
OUR_NOTE_TAG = "time_ray.note"  # the digest of the description that we wrote last
ASKED_TAG = "time_ray.asked"  # with what parameters and inputs
_ASKED = "1"  # bump when there are more of them, and older runs shall get them


class SweepRuns:
    """The runs of the sweeps that had cells of a study first."""

    def __init__(self, tracked: TrackedStudy) -> None:
        self._tracked = tracked
        self._runs = tracked.runs

    def of(self, cell: Cell) -> Run:
        """The run of the sweep that had the cell first."""
        return self.run(self._tracked.owners[cell.key])

    @property
    def own(self) -> Run:
        """The run of the sweep that has exactly the cells of the study; else of the first that has some of them."""
        own = sweep_key(self._tracked.study)
        return self.run(self._tracked.sweeps.get(own) or next(iter(self._tracked.sweeps.values())))

    def run(self, sweep: Started) -> Run:
        """The run of a sweep, with all that is said of it from the start."""
        run = self._runs.sweeps.get(sweep.key)
        if run is None:
            versions = {f"version.{name}": value for name, value in sweep.versions.items()}
            tags = {NOTE_TAG: sweep.about, OUR_NOTE_TAG: _digest(within(sweep.about, TAG)), **versions}
            run = self._runs.make("sweep", sweep.key, params.sweep_name(sweep), tags)
        self._runs.distrust(run, {"figures/": [FIGURES_TAG], "": [TOLD_TAG]})
        if TOLD_TAG not in run.tags:
            versions_file = json.dumps(sweep.versions, indent=2).encode()
            self._runs.put(run, {"experiment.yaml": sweep.written.encode(), "versions.json": versions_file})
            self._runs.tag(run, {TOLD_TAG: "true"})
        if run.tags.get(ASKED_TAG) != _ASKED:
            seeds = [cell.setting.seed for cell in self._tracked.study.everything if cell.key in sweep.cells]
            self._runs.client.log_inputs(run.id, self._tracked.inputs)
            self._runs.log(run, params=params.of_sweep(sweep, seeds), tags={ASKED_TAG: _ASKED})
        return run

    def conclude(self, results: Sequence[CellResult], found: Verdict) -> None:
        """Every sweep's run says what its cells have found, if all of these are in the study, and is over.

        Args:
            results: of all cells of the study.
            found: by all of them.

        """
        for sweep in self._tracked.sweeps.values():
            if (run := self._runs.sweeps.get(sweep.key)) is None:
                continue
            own = [result for result in results if result.cell.key in sweep.cells]
            if len(own) == len(sweep.cells):
                self._tell(sweep, run, found if len(own) == len(results) else verdict(own, self._tracked.store))
            statuses, spared = self._statuses(sweep), sum(not (result.done or result.due) for result in own)
            self._runs.end(run, ending(statuses, whole=statuses.count("FINISHED") >= len(sweep.cells) - spared))

    def _tell(self, sweep: Started, run: Run, found: Verdict) -> None:
        failed = float(self._statuses(sweep).count("FAILED"))
        self._runs.state(run, {**found.of_sweep(), "cells_failed": failed}, found.tags_of_sweep())
        log_figures(self._runs, run, of_sweep(found), shown_key([result for result in found.results if result.done]))
        self._describe(run, description(sweep, found, self._runs.experiment_id, run))

    def _describe(self, run: Run, text: str) -> None:
        """The run has this description, unless a person has written another."""
        there, text = _digest(run.tags.get(NOTE_TAG, "")), within(text, TAG)
        if run.tags.get(OUR_NOTE_TAG, there) == there:
            self._runs.tag(run, {NOTE_TAG: text, OUR_NOTE_TAG: _digest(text)})

    def _statuses(self, sweep: Started) -> list[str]:
        return [self._runs.cells[key].status for key in sweep.cells & self._runs.cells.keys()]


def ending(statuses: Sequence[str], *, whole: bool) -> Ending:
    """How something ended that has several parts."""
    if whole:
        return "FINISHED"
    return "FAILED" if "FAILED" in statuses else "KILLED"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
