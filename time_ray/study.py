"""A study: the experiment as written, resolved against data, models and techniques into cells."""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from time_ray import merging
from time_ray.clip import mini
from time_ray.clip.expert_files import GivenExperts, find_experts
from time_ray.clip.preprocessing import resolve as resolve_preprocessing
from time_ray.clip.weights import known_name, weights_digest
from time_ray.core import cell_rules
from time_ray.core.budget import Budget, Cost
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.grid import Cell, Setting, grid, last
from time_ray.core.home import at_home
from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.parameter_range import Range
from time_ray.core.recipe import Base, ResolvedTechnique, TaskTraining, Trained
from time_ray.core.scoring import Scoring
from time_ray.core.strategies import Ft, Zs, taken_by
from time_ray.core.stream import Concept, Task, cut
from time_ray.core.tuning import Params, Tuning, TuningSettings
from time_ray.data.dataset import Data
from time_ray.data.sources import MINI, DatasetRef, Role, find
from time_ray.data.stream_file import in_terms_of, read_stream
from time_ray.data.subset import PROMPTS
from time_ray.model_needs import has_batch_norm, settled_scoring, settled_training, unworkable
from time_ray.store.files import Files

Place = tuple[str | int, ...]
Fault = tuple[Place, str]  # a path in the experiment, and what is wrong there
_LOW, _HIGH = attrgetter("low"), attrgetter("high")
DEFAULT_LR = 1e-5  # the benchmark's rate; models that ship with time_ray name their own


class Datasets(NamedTuple):
    """The datasets of an experiment by role, the stream's file as it lists their classes, and given experts."""

    adaptation: tuple[DatasetRef, ...]
    evaluation: tuple[DatasetRef, ...]
    pretraining: DatasetRef | None
    listed: tuple[Concept, ...] | None = None
    experts: GivenExperts | None = None  # None: they are trained

    @property
    def all(self) -> tuple[DatasetRef, ...]:
        """Every dataset once."""
        return (*self.adaptation, *self.evaluation, *((self.pretraining,) if self.pretraining else ()))

    def open(self) -> Data:
        """The datasets, ready to be read."""
        pool = self.pretraining.open() if self.pretraining else None
        return Data(tuple(s.open() for s in self.adaptation), tuple(s.open() for s in self.evaluation), pool)


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


class StudyError(UserError):
    """Faults found while resolving, each with its path in the experiment."""

    def __init__(self, found: Sequence[Fault]) -> None:
        super().__init__(*(f"{'.'.join(map(str, path))}: {text}" for path, text in found))
        self.found = tuple(found)


class Faults:
    """What was found so far, so that all of it is said at once. It belongs to one function: others raise, or yield."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, faults: Iterable[Fault]) -> None:
        """These, too, each once."""
        self.found += [fault for fault in dict.fromkeys(faults) if fault not in self.found]

    @contextmanager
    def at(self, *place: str | int) -> Iterator[None]:
        """What is raised within is a fault of that place in the experiment, or of the places that it names itself."""
        try:
            yield
        except StudyError as error:
            self.add(error.found)
        except (UserError, merging.MergeError) as error:
            self.add((place, fault) for fault in error.faults)

    def unless_none(self) -> None:
        """Raise them all as one StudyError, or return if there is none."""
        if self.found:
            raise StudyError(self.found)


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
        datasets = _datasets(experiment, files, with_pool=takes)
    with faults.at("stream", "file"):
        listed = None if experiment.stream.file is None else read_stream(experiment.stream.file)
    if not faults.found:
        datasets = datasets._replace(listed=listed)
        with faults.at("experts"):
            datasets = datasets._replace(experts=_experts(experiment, datasets, files))
    faults.add(_not_with_experts(experiment))
    if faults.found:
        with faults.at():
            _axes(experiment)  # whoever mends the data wants to hear of these in one go
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
        techniques, bases = _axes(experiment)
    faults.add(_unscored("adaptation", datasets.adaptation, experiment.evaluation))
    faults.add(_unscored("evaluation", datasets.evaluation, experiment.evaluation))
    concepts, unfit = _concepts(experiment, datasets)
    faults.add((("stream", "file"), fault) for fault in unfit)
    faults.add(_untaught(experiment, datasets, {concept.dataset for concept in concepts}))
    faults.add(_uncut(experiment, len(concepts)))
    faults.add(_same_experts(experiment, concepts))
    with faults.at():
        normed = _with_batch_norm(experiment)
        faults.add(_accumulated(experiment, normed))
    faults.add(unworkable(experiment))
    tasks = _tasks(experiment, concepts)
    with faults.at():
        steps = allot(experiment, len(tasks[experiment.seed[0]]))
    faults.unless_none()
    settings = [
        _setting(experiment, datasets, spec, base, budget, tasks[seed], steps[spec, budget], seed, normed)
        for spec, base in zip(experiment.model, bases, strict=True)
        for budget in experiment.budget
        for seed in experiment.seed
    ]
    every = grid(experiment.init, experiment.deploy, techniques, settings)
    cells = _thinned_out(experiment, every)
    faults.add(_not_searchable(experiment, cells))
    faults.unless_none()
    used = list({cell.setting.key: cell.setting for cell in cells}.values())
    bounds = _bounds(used, techniques[0]) if experiment.multitask else ()
    tunings = _tunings(experiment, techniques, cells)
    distinct = tuple({cell.key: cell for cell in cells}.values())
    return Study(experiment, datasets, distinct, bounds, tunings, dict(found or {}))


def candidate(tuning: Tuning, params: Params) -> tuple[Cell, ...]:
    """The cells of a tuning with these parameters, as if they had been written by hand."""
    technique = _technique(TechniqueSpec(name=tuning.technique, params={**tuning.fixed, **params}))
    return tuple(replace(cell, technique=technique) for cell in tuning.cells)


def _tunings(
    experiment: Experiment, techniques: Sequence[ResolvedTechnique], cells: Sequence[Cell]
) -> tuple[Tuning, ...]:
    """A search for each technique with ranges and each place where it merges. Raises StudyError with every fault."""
    faults, found = Faults(), list[Tuning]()
    for index, (spec, technique) in enumerate(zip(experiment.technique, techniques, strict=True)):
        if not spec.ranges:
            continue
        places: dict[tuple[str, ...], list[Cell]] = {}
        for cell in cells:
            if cell.technique is technique:
                places.setdefault(cell.place, []).append(cell)
        every = [_tuning(experiment.tuning, spec, place) for place in places.values()]
        trained = [one for one in every if _differs(one, lambda cell: cell.trajectory)]
        served = [one for one in every if _differs(one, lambda cell: last(cell).key)]
        found += served
        if trained:
            names = ", ".join(dict.fromkeys(one.cells[0].init.name for one in trained))
            text = "a range is searched where the technique only deploys"
            rule = f"exclude: [{{init: [{names}], technique: {spec.name}}}]"
            faults.add([(("technique", index), f"{text}, and with init {names} it trains, too; write {rule}")])
        elif not served:
            text = "there is nothing to search on, as nothing that is deployed depends on these ranges"
            faults.add([(("technique", index), f"{text}; give deploy: all, or values instead of ranges")])
    faults.unless_none()
    called = [one.name for one in found]
    return tuple(replace(one, named=one.label) if called.count(one.name) > 1 else one for one in found)


def _tuning(settings: TuningSettings, spec: TechniqueSpec, cells: Sequence[Cell]) -> Tuning:
    ranges = {name: replace(found, whole=_is_whole(spec, name, found)) for name, found in spec.ranges.items()}
    defaults = {name: merging.TECHNIQUES[spec.name].parameters[name].default for name in ranges}
    inside = all(
        isinstance(value, int | float) and ranges[name].low <= value <= ranges[name].high
        for name, value in defaults.items()
    )
    return Tuning(
        spec.name, spec.label, spec.fixed.params, ranges, defaults if inside else None, settings, tuple(cells)
    )


def _is_whole(spec: TechniqueSpec, name: str, found: Range) -> bool:
    return isinstance(merging.TECHNIQUES[spec.name].parameters[name].read(name, found.low), int)


def _differs(tuning: Tuning, what: Callable[[Cell], str]) -> bool:
    """Whether something of the cells depends on what is searched."""
    ends = ({name: bound(one) for name, one in tuning.ranges.items()} for bound in (_LOW, _HIGH))
    low, high = (what(candidate(tuning, end)[0]) for end in ends)
    return low != high


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


def _bounds(settings: Sequence[Setting], technique: ResolvedTechnique) -> tuple[Cell, ...]:
    """For each setting one training on all its tasks at once, with the budget of all: what no merge of experts knows.

    It is a stream of one task, so there is nothing to merge, and no technique that counts.
    """
    once = [replace(setting, trainings=(_at_once(setting.trainings),)) for setting in settings]
    return tuple(Cell(Zs(), Ft(), technique, setting, multitask=True) for setting in once)


def _at_once(trainings: Sequence[TaskTraining]) -> TaskTraining:
    concepts = tuple(concept for training in trainings for concept in training.task.concepts)
    data_key = key_of("multitask data", [training.data_key for training in trainings])
    steps = sum(training.steps for training in trainings)
    return replace(trainings[0], task=Task(1, concepts), earlier=(), steps=steps, data_key=data_key)


def allot(experiment: Experiment, num_tasks: int) -> dict[tuple[ModelSpec, Budget], int]:
    """Optimiser steps of a task for every model and budget.

    Raises:
        StudyError: a budget is less than a step a task, or is another one written differently; a model is unknown.

    """
    batch_size, faults = experiment.training.batch_size, Faults()
    steps: dict[tuple[ModelSpec, Budget], int] = {}
    for place, spec in enumerate(experiment.model):
        cost = partial(_step_cost, spec.name, batch_size)
        for index, budget in enumerate(experiment.budget):
            with faults.at("model", place):
                try:
                    steps[spec, budget] = budget.steps(batch_size, num_tasks, cost)
                except ValueError as error:
                    faults.add([(("budget", index), f"{error} ({spec.label})")])
        faults.add(_same("budget", [(b.label, str(steps.get((spec, b), b.label))) for b in experiment.budget]))
    faults.unless_none()
    return steps


def check_weights(study: Study, stored: Container[str]) -> None:
    """Every model's base weights can be read and fit its architecture. UserError names each tensor that does not.

    Shipped ones do: their digest is known. Those of given experts are compared by names and shapes, see check_experts.
    """
    check_experts(study, stored)
    given = [spec for spec in study.experiment.model if spec.weights is not None]
    if not given:
        return
    from time_ray.clip.models import base_weights

    faults: list[str] = []
    for spec in given:
        try:
            base_weights(spec)
        except UserError as error:
            faults += error.faults
    UserError.unless_none(faults)


def check_experts(study: Study, stored: Container[str]) -> None:
    """Given experts have the tensors of their models. UserError names each that does not fit; no value is read.

    Args:
        study: Of the experts.
        stored: Keys of weights that are in the store: of those no file is read again.

    """
    files = [
        (setting.model, Path(training.given.path))
        for setting in study.settings
        for training in setting.trainings
        if training.given is not None and Trained(setting.base, training).key not in stored
    ]
    if not files:
        return
    from time_ray.clip.models import unfit

    UserError.unless_none(fault for spec, path in dict.fromkeys(files) for fault in unfit(spec, path))


def _experts(experiment: Experiment, datasets: Datasets, files: Files) -> GivenExperts | None:
    """Raises UserError with every fault of their files."""
    if experiment.experts is None:
        return None
    taught = dict.fromkeys(concept.dataset for concept in _concepts(experiment, datasets)[0])
    return find_experts(experiment.experts, [spec.name for spec in experiment.model], list(taught), files)


def _not_with_experts(experiment: Experiment) -> Iterator[Fault]:
    """What makes no sense where experts are given, and nothing is trained."""
    if experiment.experts is None:
        return
    for index, strategy in enumerate(experiment.init):
        if not isinstance(strategy, Zs):
            text = "given experts start from the base, whatever came before; leave zs alone, or remove experts"
            yield ("init", index), f"'{strategy.label}': {text}"
    for index, technique in enumerate(experiment.technique):
        if technique.name in merging.TECHNIQUES and merging.TECHNIQUES[technique.name].needs_moments:
            text = "it needs second moments of trainings, but experts are given; take it out, or remove experts"
            yield ("technique", index), f"'{technique.label}': {text}"
    if not experiment.stream.by_dataset:
        text = "an expert is given for each dataset; write random_datasets or dataset_incremental"
        yield ("stream", "order"), f"{experiment.stream.arrangement}: {text}"
    if len(experiment.budget) > 1:
        yield ("budget", 1), "experts are given, so that no budget is spent; keep one"
    if experiment.multitask:
        yield ("multitask",), "trains, but experts are given; remove one of the two"
    if experiment.batch_norm.num_batches is not None:
        yield (
            ("batch_norm", "statistics"),
            "reestimate wants a training, but experts are given; write average",
        )


def _same_experts(experiment: Experiment, concepts: tuple[Concept, ...]) -> Iterator[Fault]:
    """Seeds that differ in nothing: given experts depend on none, and may come in the same order."""
    if experiment.experts is not None and experiment.evaluation.subset is None:
        orders = {seed: [t.named for t in tasks] for seed, tasks in _tasks(experiment, concepts).items()}
        yield from _same("seed", [(f"seed {seed}", key_of("order", order)) for seed, order in orders.items()])


def _with_batch_norm(experiment: Experiment) -> tuple[ModelSpec, ...]:
    """The models with BatchNorm, where something depends on it. Raises StudyError with every fault."""
    faults, found = Faults(), list[ModelSpec]()
    for index, spec in enumerate(experiment.model):
        if experiment.batch_norm.num_batches is not None or _micro_batches(experiment, spec) > 1:
            with faults.at("model", index):
                found += [spec] if has_batch_norm(spec.name) else []
    faults.unless_none()
    return tuple(found)


def _accumulated(experiment: Experiment, normed: Iterable[ModelSpec]) -> Iterator[Fault]:
    for spec in normed:
        if _micro_batches(experiment, spec) > 1:
            text = f"model {spec.label} has BatchNorm, whose statistics are of whole batches; set it to 1"
            yield (
                ("run", *experiment.run.place(spec, "accumulate")),
                f"{text}, and for less memory use more run.workers",
            )


def _micro_batches(experiment: Experiment, spec: ModelSpec) -> int:
    return experiment.run.of(spec).accumulate or 1


def _axes(experiment: Experiment) -> tuple[list[ResolvedTechnique], list[Base]]:
    """The techniques and the base of each model. Raises StudyError with every fault."""
    faults, techniques, bases = Faults(), list[ResolvedTechnique](), list[Base]()
    for index, technique in enumerate(experiment.technique):
        with faults.at("technique", index):
            _check_bounds(technique)
            techniques.append(_technique(technique.fixed))
    for index, model in enumerate(experiment.model):
        with faults.at():
            bases.append(_base(model, ("model", index)))
    faults.unless_none()
    named = zip(experiment.technique, techniques, strict=True)
    faults.add(_same("technique", [(spec.label, spec.label if spec.ranges else one.entry_key) for spec, one in named]))
    faults.add(_same("model", [(spec.label, base.key) for spec, base in zip(experiment.model, bases, strict=True)]))
    faults.unless_none()
    return techniques, bases


def _base(spec: ModelSpec, place: Place) -> Base:
    """Raises StudyError with every fault of the model at that place."""
    faults, digest, preprocessing = Faults(), "", dict[str, object]()
    with faults.at(*place):
        known_name(spec.name)
    faults.unless_none()
    with faults.at(*place):
        digest = weights_digest(spec)
    with faults.at(*place, *(("preprocess",) if spec.preprocess else ())):
        preprocessing.update(resolve_preprocessing(spec).identity)
    faults.unless_none()
    return Base(spec.name, digest, preprocessing)


def _same(axis: str, entries: Sequence[tuple[str, str]]) -> Iterator[Fault]:
    """Entries of an axis that are written differently and mean the same: their cells would be run twice."""
    first: dict[str, str] = {}
    for index, (label, key) in enumerate(entries):
        if key in first:
            yield (axis, index), f"'{label}' is the same as '{first[key]}'; keep one, a cell is run once"
        first.setdefault(key, label)


def _check_bounds(spec: TechniqueSpec) -> None:
    """Raises UserError with every bound of a range that its parameter does not allow."""
    faults: list[str] = []
    for bound in (_LOW, _HIGH) if spec.ranges else ():
        ends = {name: bound(found) for name, found in spec.ranges.items()}
        try:
            merging.normalise(spec.name, {**spec.fixed.params, **ends}, "merge")
        except merging.MergeError as error:
            faults += error.faults
    UserError.unless_none(dict.fromkeys(faults))


def _technique(spec: TechniqueSpec) -> ResolvedTechnique:
    """Raises UserError with every fault of its parameters."""
    faults: list[str] = []
    if "weight" in spec.params:
        owners = " or ".join(taken_by("weight"))
        faults.append(f"weight belongs to the running merge; write init or deploy as {{name: {owners}, weight: ...}}")
    try:
        params = merging.normalise(spec.name, spec.params, "merge")
        pair_params = merging.normalise(spec.name, spec.params, "pair")
    except merging.MergeError as error:
        raise UserError(*faults, *error.faults) from error
    UserError.unless_none(faults)
    row = merging.TECHNIQUES[spec.name]
    other = row.same_as(row.fill(spec.params))
    if other is not None:
        resolved = _technique(TechniqueSpec(name=other, params={}))
        return replace(
            resolved, label=spec.label, weighted=False, weighs_experts=False, share=0.5, written_as=spec.name
        )
    pair_params.pop("weight", None)  # the strategy's, and part of the recipe beside the technique
    return ResolvedTechnique(
        spec.name,
        spec.label,
        row.version,
        params,
        pair_params,
        weighted=row.takes_weight,
        identity_of_one=row.single_is_identity(params),
        weighs_experts=row.takes_weight and "weights" in row.parameters,
        needs_moments=row.needs_moments,
    )


def _datasets(experiment: Experiment, files: Files, *, with_pool: bool) -> Datasets:
    """Raises StudyError with every fault."""
    data, faults = experiment.data, Faults()
    with faults.at("data", "root"):
        if data.root is not None and not at_home(data.root).is_dir():
            raise UserError(f"'{data.root}' is no folder; correct it, or import data there")
    faults.unless_none()

    def found(role: Role, references: Sequence[str]) -> Iterator[DatasetRef]:
        for reference in references:
            with faults.at("data", role):
                yield from find(_under(data.root, reference), role, files.path("data"), files.filesystem)

    adaptation = tuple(found("adaptation", data.adaptation))
    evaluation = tuple(found("evaluation", data.evaluation))
    pool: tuple[DatasetRef, ...] = ()
    if experiment.mixture.pretraining > 0 and data.pretraining is None:
        text = "mixture.pretraining is above 0, but no pool is given; name one"
        faults.add([(("data", "pretraining"), text)])
    elif with_pool and data.pretraining is not None:
        pool = tuple(found("pretraining", (data.pretraining,)))
    faults.add(_repeated([dataset.name for dataset in (*adaptation, *evaluation)]))
    faults.unless_none()
    return Datasets(adaptation, evaluation, pool[0] if pool else None)


def _under(root: str | None, reference: str) -> str:
    """The path of a reference, which is relative to the root of the data if there is one; names stay names."""
    if root is None or reference.split(":", maxsplit=1)[0] == MINI:
        return reference
    return str(at_home(root) / at_home(reference))


def _repeated(names: Sequence[str]) -> Iterator[Fault]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield ("data",), f"dataset '{name}' is used twice; a name may stand once in adaptation and evaluation"


def _unscored(role: Role, sources: Sequence[DatasetRef], scoring: Scoring) -> Iterator[Fault]:
    for source in sources:
        if source.lacks and not (source.lacks == PROMPTS and scoring.templates):
            text = f"no {source.lacks}, so it cannot be scored; leave it out or import it with some"
            yield ("data", role), f"dataset {source.name}: {text}"


def _untaught(experiment: Experiment, datasets: Datasets, learned: Collection[str]) -> Iterator[Fault]:
    """Datasets that are to be learned from, but have nothing for it."""
    if experiment.mixture.update > 0 and datasets.experts is None:
        for source in datasets.adaptation:
            if source.name in learned and not source.teaches:
                text = "no training images, so it cannot be learned; use it for evaluation"
                yield ("data", "adaptation"), f"dataset {source.name}: {text}"
    if datasets.pretraining and not datasets.pretraining.teaches:
        text = "no training images, so it is no pool; name another dataset"
        yield ("data", "pretraining"), f"dataset {datasets.pretraining.name}: {text}"


def _concepts(experiment: Experiment, datasets: Datasets) -> tuple[tuple[Concept, ...], list[str]]:
    """What arrives: the classes of the stream's file, else all of the data; and what is wrong with the former."""
    if datasets.listed is None:
        return tuple(Concept(dataset.name, name) for dataset in datasets.adaptation for name in dataset.classes), []
    known = {dataset.name: dataset.classes for dataset in datasets.adaptation}
    return in_terms_of(known, datasets.listed, str(experiment.stream.file))


def _uncut(experiment: Experiment, num_concepts: int) -> Iterator[Fault]:
    """Why the stream cannot be cut into the tasks that are asked for."""
    stream = experiment.stream
    if stream.by_dataset:
        return
    if stream.tasks is None:
        yield ("stream", "tasks"), f"a {stream.arrangement} stream needs a number of tasks"
    elif num_concepts and stream.tasks > num_concepts:
        what = "adaptation data" if stream.file is None else "stream's file"
        text = f"{stream.tasks} tasks, but the {what} has only {num_concepts} classes; ask for fewer"
        yield ("stream", "tasks"), text


def _tasks(experiment: Experiment, concepts: tuple[Concept, ...]) -> dict[int, tuple[Task, ...]]:
    """The stream of each seed."""
    stream = experiment.stream
    return {
        seed: cut(concepts, stream.arrangement, stream.tasks or 1, seed=seed, reverse=stream.reverse)
        for seed in experiment.seed
    }


def _step_cost(name: str, batch_size: int) -> Cost:
    from time_ray.clip.cost import step_cost  # imports torch, which only budgets in FLOPs need

    return step_cost(name, batch_size)


def _setting(
    experiment: Experiment,
    datasets: Datasets,
    spec: ModelSpec,
    base: Base,
    budget: Budget,
    tasks: tuple[Task, ...],
    steps: int,
    seed: int,
    normed: Collection[ModelSpec],
) -> Setting:
    training, mixture = settled_training(experiment, spec), experiment.mixture
    if training.lr is None:
        training = training.model_copy(update={"lr": _own_rate(spec)})
    keys = {source.name: source.key for source in datasets.adaptation}
    pool = datasets.pretraining.key if datasets.pretraining else None
    trainings = []
    for number, task in enumerate(tasks):
        earlier = tasks[:number] if mixture.buffer > 0 else ()
        used = sorted({concept.dataset for t in (task, *earlier) for concept in t.concepts})
        data_key = key_of("data", [(name, keys[name]) for name in used], pool)
        given = datasets.experts and datasets.experts[spec.name][task.concepts[0].dataset]
        spent = 0 if given else steps
        trainings.append(TaskTraining(task, earlier, training, mixture, spent, seed, data_key, given or None))
    scored = [(source.name, source.key) for source in (*datasets.adaptation, *datasets.evaluation)]
    return Setting(
        model=spec,
        budget=budget.label,
        seed=seed,
        base=base,
        trainings=tuple(trainings),
        adaptation=tuple(source.name for source in datasets.adaptation),
        evaluation=tuple(source.name for source in datasets.evaluation),
        evaluation_data_key=key_of("evaluation data", scored),
        scoring=settled_scoring(experiment, spec),
        batches=experiment.batch_norm.num_batches if spec in normed else None,
    )


def _own_rate(spec: ModelSpec) -> float:
    shipped = mini.MODELS.get(spec.name)
    return shipped.finetune_lr if shipped else DEFAULT_LR
