"""Summary runs: one for each cell over its seeds, under the sweep, with the seeds' runs beneath.

What a summary says of seeds is never changed: where seeds or scores are others now, the run is made anew.
"""

from collections.abc import Sequence

from time_ray.core.keys import key_of
from time_ray.results import CellResult
from time_ray.tracking.pictures import FIGURES_TAG, log_figures, of_summary
from time_ray.tracking.places import places, shown_key
from time_ray.tracking.points import over_seeds, points_version
from time_ray.tracking.runs import PARENT_TAG, SWEEP_TAG, Run
from time_ray.tracking.sweep_runs import SweepRuns, ending
from time_ray.tracking.tracked_study import TrackedStudy
from time_ray.tracking.verdict import REMOVED_TAG, Verdict

SEEDS_TAG = "time_ray.seeds"
SHOWN_TAG = "time_ray.shown"  # a key of what was logged


class Summaries:
    """The summary runs of a study. With one seed there are none, and cells say themselves how they stand."""

    def __init__(self, tracked: TrackedStudy, sweeps: SweepRuns) -> None:
        self._tracked = tracked
        self._runs = tracked.runs
        self._sweeps = sweeps

    def state(self, results: Sequence[CellResult], found: Verdict) -> None:
        """Cells, and what they are over their seeds, say how they stand in the ranking, and what they cost.

        Args:
            results: of all cells of the study.
            found: by all of them.

        """
        for place, each in places(results, self._tracked.study).items():
            done = [result for result in each if result.done]
            if done and self._tracked.several_seeds:
                self._summarise(place, each, done, found)
            for result in done:
                if run := self._runs.cells.get(result.cell.key):
                    self._runs.state(run, found.of_cells([result]), found.tags_of([result]))
                    self._still_in(run, result)

    def _summarise(self, place: str, each: Sequence[CellResult], done: Sequence[CellResult], found: Verdict) -> None:
        run = self._logged(place, each, done)
        self._runs.distrust(run, {"": [FIGURES_TAG]})
        log_figures(self._runs, run, of_summary(done), shown_key(done))
        self._runs.state(run, {**found.of_cells(done), "seeds": float(len(done))}, found.tags_of(done))
        children = [self._runs.cells[result.cell.key] for result in each if result.cell.key in self._runs.cells]
        for child in children:
            self._runs.tag(child, {PARENT_TAG: run.id})
        self._still_in(run, done[0])
        self._runs.end(run, ending([child.status for child in children], whole=not any(result.due for result in each)))

    def _still_in(self, run: Run, result: CellResult) -> None:
        """What a search had removed, and a later sweep has run all the same, is removed no more."""
        if result.removed is None and REMOVED_TAG in run.tags:
            self._runs.untag(run, REMOVED_TAG)

    def _logged(self, place: str, each: Sequence[CellResult], done: Sequence[CellResult]) -> Run:
        """The run over the seeds that are done, with the points of all tasks; under the sweep that had one first."""
        cell, shown = done[0].cell, key_of(points_version(), shown_key(done))
        owners = (self._tracked.owners[result.cell.key] for result in each)
        sweep = min(owners, key=lambda owner: (owner.seconds, owner.key))
        tags = {SWEEP_TAG: sweep.key, PARENT_TAG: self._sweeps.run(sweep).id}
        name, removed = self._tracked.name_over_seeds(cell), done[0].removed
        name = f"{name}, {removed.when}" if removed else name  # charts show names: fewer seeds are not the same
        run = self._runs.summaries.get(place)
        if run is not None and run.tags.get(SHOWN_TAG, shown) != shown:
            self._runs.forget("summary", place)
            run = None
        if run is None:
            run = self._runs.make("summary", place, name, tags)
        if run.tags.get(SHOWN_TAG) != shown:
            self._runs.reopen(run)
            seeds = ", ".join(str(result.cell.setting.seed) for result in done)
            common = {key: value for key, value in self._tracked.params(cell).items() if key != "seed"}
            metrics = [point.metric(run.start) for point in over_seeds(done)]
            self._runs.log(run, metrics, common, {SEEDS_TAG: seeds, SHOWN_TAG: shown})
        self._runs.rename(run, name)
        self._runs.tag(run, tags)
        return run
