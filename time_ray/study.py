"""A study: the experiment as written, resolved against data, models and techniques into cells."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from time_ray import merging
from time_ray.clip import mini
from time_ray.clip.preprocessing import resolve as resolve_preprocessing
from time_ray.clip.weights import known_name, weights_digest
from time_ray.core.budget import Budget, Cost
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.home import at_home
from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Base, ResolvedTechnique, TaskTraining
from time_ray.core.scoring import Scoring
from time_ray.core.strategies import Ft, Zs, taken_by
from time_ray.core.stream import Concept, Task, cut
from time_ray.data.dataset import Data
from time_ray.data.sources import MINI, DatasetRef, Role, find
from time_ray.data.stream_file import in_terms_of, read_stream
from time_ray.data.subset import PROMPTS
from time_ray.model_needs import has_batch_norm, settled_scoring, settled_training, unworkable
from time_ray.store.files import Files

Place = tuple[str | int, ...]
Fault = tuple[Place, str]  # a path in the experiment, and what is wrong there
DEFAULT_LR = 1e-5  # the benchmark's rate; models that ship with time_ray name their own


class Datasets(NamedTuple):
    """The datasets of an experiment by role, and the stream's file as it lists their classes."""

    adaptation: tuple[DatasetRef, ...]
    evaluation: tuple[DatasetRef, ...]
    pretraining: DatasetRef | None
    listed: tuple[Concept, ...] | None = None

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

    @property
    def everything(self) -> tuple[Cell, ...]:
        """All that a sweep runs."""
        return (*self.cells, *self.bounds)

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
    """The datasets that an experiment names; what must be imported first is imported.

    Args:
        experiment: as written.
        files: the storage, where imports and the mini world lie.
        with_pool: whether the pretraining pool is looked for; None: if the mixture takes from it.

    Raises:
        StudyError: with every fault of the data and the stream's file; with those of techniques and models if there
            is one.

    """
    faults = Faults()
    takes = experiment.mixture.pretraining > 0 if with_pool is None else with_pool
    with faults.at():
        datasets = _datasets(experiment, files, with_pool=takes)
    with faults.at("stream", "file"):
        listed = None if experiment.stream.file is None else read_stream(experiment.stream.file)
    if faults.found:
        with faults.at():
            _axes(experiment)  # whoever mends the data wants to hear of these in one go
    faults.unless_none()
    return datasets._replace(listed=listed)


def resolve(experiment: Experiment, datasets: Datasets) -> Study:
    """The study of an experiment on its datasets.

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
    cells = grid(experiment.init, experiment.deploy, techniques, settings)
    faults.add(_nothing_to_search(experiment, cells))
    faults.unless_none()
    return Study(experiment, datasets, cells, _bounds(settings, techniques[0]) if experiment.multitask else ())


def _nothing_to_search(experiment: Experiment, cells: Sequence[Cell]) -> Iterator[Fault]:
    if experiment.search is not None and len(cells) <= len(experiment.seed):
        yield ("search",), "there is one cell, so nothing to choose from; write several values of an axis"


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


def check_weights(study: Study) -> None:
    """Every model's base weights can be read and fit its architecture. UserError names each tensor that does not.

    Shipped ones do: their digest is known.
    """
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
            techniques.append(_technique(technique))
    for index, model in enumerate(experiment.model):
        with faults.at():
            bases.append(_base(model, ("model", index)))
    faults.unless_none()
    faults.add(_same("technique", [(technique.label, technique.entry_key) for technique in techniques]))
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
        return replace(resolved, label=spec.label, weighted=False, share=0.5, written_as=spec.name)
    pair_params.pop("weight", None)  # the strategy's, and part of the recipe beside the technique
    return ResolvedTechnique(
        spec.name,
        spec.label,
        row.version,
        params,
        pair_params,
        weighted=row.takes_weight,
        identity_of_one=row.single_is_identity(params),
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
    if experiment.mixture.update > 0:
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
    if stream.arrangement == "dataset_incremental":
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
        trainings.append(TaskTraining(task, earlier, training, mixture, steps, seed, data_key))
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
