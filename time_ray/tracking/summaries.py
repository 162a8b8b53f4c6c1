"""Summary runs: one for each cell over its seeds, under the sweep, with the seeds' runs beneath.

What a summary says is never changed: where seeds or scores are others now, the run is made anew.
"""

from collections.abc import Iterator, Mapping, Sequence

from time_ray.core.experiment import AXES
from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.core.recipe import TaskTraining
from time_ray.results import CellResult
from time_ray.study import Study
from time_ray.tracking import points
from time_ray.tracking.runs import PARENT_TAG, Run, Runs

SEEDS_TAG = "time_ray.seeds"
SHOWN_TAG = "time_ray.shown"  # a key of what was logged
_VERSION = 1  # bump when a summary of the same scores would have other points


def place_key(cell: Cell, study: Study) -> str:
    """What is the same for all seeds of a cell, and for no other cell of any sweep of this name."""
    setting, experiment = cell.setting, study.experiment
    axes = [cell.axes[axis] for axis in AXES if axis != "seed"]
    training: TaskTraining = setting.trainings[0]
    learned = (training.config.model_dump(), training.mixture.model_dump(), training.steps, len(setting.trainings))
    scored = (setting.adaptation, setting.evaluation, setting.evaluation_data_key)
    scoring = (setting.scoring.subset, setting.scoring.templates, setting.batches)
    stream = experiment.stream.model_dump(mode="json")
    return key_of("place", axes, cell.technique.entry_key, setting.base.key, *learned, *scored, *scoring, stream)


def places(results: Sequence[CellResult], study: Study) -> dict[str, list[CellResult]]:
    """Results by place, each with its seeds in order."""
    found: dict[str, list[CellResult]] = {}
    for result in sorted(results, key=lambda result: result.cell.setting.seed):
        found.setdefault(place_key(result.cell, study), []).append(result)
    return found


def log_summary(
    runs: Runs, place: str, results: Sequence[CellResult], name: str, params: Mapping[str, str], tags: Mapping[str, str]
) -> Run:
    """The run over these seeds, with the points of all tasks; it may be over, or open.

    Args:
        runs: of the experiment.
        place: see `place_key`.
        results: of the seeds that are finished, at least one.
        name: of the run.
        params: what the seeds have in common.
        tags: of a run that is made: its parent, and its sweep.

    """
    shown = shown_key(results)
    run = runs.summaries.get(place)
    if run is not None and run.tags.get(SHOWN_TAG, shown) != shown:
        runs.forget("summary", place)
        run = None
    if run is None:
        run = runs.make("summary", place, name, tags)
    if run.tags.get(SHOWN_TAG) != shown:
        runs.reopen(run)
        seeds = ", ".join(str(result.cell.setting.seed) for result in results)
        metrics = [point.metric(run.start) for point in points.over_seeds(results)]
        runs.log(run, metrics, params, {SEEDS_TAG: seeds, SHOWN_TAG: shown})
    runs.rename(run, name)
    return run


def shown_key(results: Sequence[CellResult]) -> str:
    """Of all that is shown of these results."""
    rows = [[result.cell.key, *(row.scores_key for row in result.rows)] for result in results]
    lengths = [sorted(result.at_lengths) for result in results]
    return key_of("shown", _VERSION, points.points_version(), rows, lengths)


def adopt(runs: Runs, parent: Run, children: Iterator[Run]) -> None:
    """The children hang under the parent."""
    for child in children:
        runs.tag(child, {PARENT_TAG: parent.id})
