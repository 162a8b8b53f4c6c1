"""A study: the experiment as written, resolved against data, models and techniques into cells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from time_ray.core import cell_rules
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.tuning import Params, Tuning
from time_ray.data.stream_file import read_stream
from time_ray.model_needs import unworkable
from time_ray.store.files import Files
from time_ray.study.axes import axes
from time_ray.study.batch_norm import accumulated, with_batch_norm
from time_ray.study.datasets import Datasets, named_datasets, unscored, untaught
from time_ray.study.experts import given_experts, not_with_experts, same_experts
from time_ray.study.faults import Fault, Faults
from time_ray.study.multitask import multitask_bounds
from time_ray.study.settings import allot, resolved_settings
from time_ray.study.streams import arriving, streams, uncut
from time_ray.study.tunings import candidate, find_tunings


@dataclass(frozen=True)
class Study:
    """An experiment with everything resolved that decides its results."""

    experiment: Experiment
    datasets: Datasets
    cells: tuple[Cell, ...]
    bounds: tuple[Cell, ...] = ()  # what was trained on all tasks at once: no cells of the grid
    tunings: tuple[Tuning, ...] = ()  # searches for parameters
    found: dict[str, Params] = field(default_factory=dict)  # by the key of a tuning, as far as they are known yet

    @property
    def everything(self) -> tuple[Cell, ...]:
        """All that a sweep runs, as far as it is known."""
        return (*self.cells, *self.tuned, *self.bounds)

    @property
    def tuned(self) -> tuple[Cell, ...]:
        """Cells with the parameters that were found, where these are not in the grid anyway."""
        in_grid = {cell.key for cell in self.cells}
        best = {
            cell.key: cell
            for tuning in self.tunings
            if tuning.key in self.found
            for cell in candidate(tuning, self.found[tuning.key])
        }
        return tuple(cell for key, cell in best.items() if key not in in_grid)

    @property
    def untuned(self) -> tuple[Tuning, ...]:
        """Searches whose end is not known yet."""
        return tuple(tuning for tuning in self.tunings if tuning.key not in self.found)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The distinct settings, in order."""
        return tuple({cell.setting.key: cell.setting for cell in self.cells}.values())


def find_datasets(experiment: Experiment, files: Files, *, with_pool: bool | None = None) -> Datasets:
    """The datasets that an experiment names, and the experts; what must be imported first is imported.

    Args:
        experiment: as written.
        files: the storage, where imports and the mini world lie.
        with_pool: whether the pretraining pool is looked for; None: if the mixture takes from it.

    Raises:
        StudyError: with every fault of the data, the stream's file and given experts; with those of techniques and
            models if there is one.

    """
    faults = Faults()
    takes = experiment.mixture.pretraining > 0 if with_pool is None else with_pool
    with faults.at():
        datasets = named_datasets(experiment, files, with_pool=takes)
    with faults.at("stream", "file"):
        listed = None if experiment.stream.file is None else read_stream(experiment.stream.file)
    if not faults.found:
        datasets = datasets._replace(listed=listed)
        with faults.at("experts"):
            datasets = datasets._replace(experts=given_experts(experiment, datasets, files))
    faults.add(not_with_experts(experiment))
    if faults.found:
        with faults.at():
            axes(experiment)  # whoever mends the data wants to hear of these in one go
    faults.unless_none()
    return datasets


def resolve(experiment: Experiment, datasets: Datasets, found: Mapping[str, Params] | None = None) -> Study:
    """The study of an experiment on its datasets.

    Args:
        experiment: as written.
        datasets: that it names.
        found: the best parameters, by the key of a tuning, as far as they are known.

    Raises:
        StudyError: with every fault.

    """
    faults = Faults()
    with faults.at():
        techniques, bases = axes(experiment)
    faults.add(unscored("adaptation", datasets.adaptation, experiment.evaluation))
    faults.add(unscored("evaluation", datasets.evaluation, experiment.evaluation))
    concepts, unfit = arriving(experiment, datasets)
    faults.add((("stream", "file"), fault) for fault in unfit)
    faults.add(untaught(experiment, datasets, {concept.dataset for concept in concepts}))
    faults.add(uncut(experiment, len(concepts)))
    faults.add(same_experts(experiment, concepts))
    with faults.at():
        normed = with_batch_norm(experiment)
        faults.add(accumulated(experiment, normed))
    faults.add(unworkable(experiment))
    tasks = streams(experiment, concepts)
    with faults.at():
        steps = allot(experiment, len(tasks[experiment.seed[0]]))
    faults.unless_none()
    settings = resolved_settings(experiment, datasets, bases, tasks, steps, normed)
    every = grid(experiment.init, experiment.deploy, techniques, settings)
    cells = _thinned_out(experiment, every)
    faults.add(_not_searchable(experiment, cells))
    faults.unless_none()
    used = list({cell.setting.key: cell.setting for cell in cells}.values())
    bounds = multitask_bounds(used, techniques[0]) if experiment.multitask else ()
    tunings = find_tunings(experiment, techniques, cells)
    distinct = tuple({cell.key: cell for cell in cells}.values())
    return Study(experiment, datasets, distinct, bounds, tunings, dict(found or {}))


def _thinned_out(experiment: Experiment, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """What the rules of the experiment leave of the grid. Raises StudyError: some mean nothing, or nothing is left."""
    faults = Faults()
    for key, rules in (("exclude", experiment.exclude), ("only", experiment.only)):
        faults.add(((key, number, axis), text) for number, axis, text in cell_rules.unmatched(cells, rules))
    faults.unless_none()
    left = cell_rules.kept(cells, experiment.exclude, experiment.only)
    if not left:
        key = "exclude" if experiment.exclude else "only"
        faults.add([((key,), f"none of {len(cells)} cells is left; take a rule out")])
    faults.unless_none()
    return left


def _not_searchable(experiment: Experiment, cells: Sequence[Cell]) -> Iterator[Fault]:
    if experiment.search is None:
        return
    if len(cells) <= len(experiment.seed):
        yield ("search",), "there is one cell, so nothing to choose from; write several values of an axis"
    if ranges := [spec.label for spec in experiment.technique if spec.ranges]:
        text = "ranges are searched once the whole grid is there; give them values, or leave search out"
        yield ("search",), f"technique {', '.join(ranges)}: {text}"
