"""What cells have in common over their seeds: the place that they share, and a key of what is shown of them."""

from collections.abc import Sequence

from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.core.recipe import TaskTraining
from time_ray.results import CellResult
from time_ray.study import Study


def place_key(cell: Cell, study: Study) -> str:
    """What is the same for all seeds of a cell, and for no other cell of any sweep of this name."""
    setting, experiment = cell.setting, study.experiment
    training: TaskTraining = setting.trainings[0]
    learned = (training.config.identity, training.mixture.model_dump(), training.steps, len(setting.trainings))
    scored = (setting.adaptation, setting.evaluation, setting.evaluation_data_key)
    scoring: tuple[object, ...] = (setting.scoring.subset, setting.scoring.templates, setting.batches)
    scoring += () if setting.scoring.precision == "fp32" else (setting.scoring.precision,)
    stream = experiment.stream.model_dump(mode="json")
    return key_of(
        "place", list(cell.place), cell.technique.entry_key, setting.base.key, *learned, *scored, *scoring, stream
    )


def places(results: Sequence[CellResult], study: Study) -> dict[str, list[CellResult]]:
    """Results by place, each with its seeds in order."""
    found: dict[str, list[CellResult]] = {}
    for result in sorted(results, key=lambda result: result.cell.setting.seed):
        found.setdefault(place_key(result.cell, study), []).append(result)
    return found


def shown_key(results: Sequence[CellResult]) -> str:
    """Of what figures show of these results."""
    rows = [[result.cell.key, *(row.scores_key for row in result.rows)] for result in results]
    lengths = [sorted(result.at_lengths) for result in results]
    return key_of("shown", rows, lengths)
