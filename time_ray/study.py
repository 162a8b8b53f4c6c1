"""A study: the experiment as written, resolved against data, models and techniques into cells."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from time_ray import merging
from time_ray.clip import mini
from time_ray.clip.weights import weights_digest
from time_ray.core.budget import Budget, Cost
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment, TechniqueSpec
from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Base, ResolvedTechnique, TaskTraining
from time_ray.core.scoring import Scoring
from time_ray.core.strategies import taken_by
from time_ray.core.stream import Concept, Task, cut
from time_ray.data.dataset import Data
from time_ray.data.sources import MINI, DatasetRef, Role, find
from time_ray.data.stream_file import in_terms_of, read_stream
from time_ray.data.subset import PROMPTS
from time_ray.store.files import Files

Fault = tuple[tuple[str | int, ...], str]  # a path in the experiment, and what is wrong there
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

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The distinct settings, in order."""
        return tuple({cell.setting.key: cell.setting for cell in self.cells}.values())


class StudyError(UserError):
    """Faults found while resolving, each with its path in the experiment."""

    def __init__(self, found: Sequence[Fault]) -> None:
        super().__init__(*(f"{'.'.join(map(str, path))}: {text}" for path, text in found))
        self.found = tuple(found)


def find_datasets(experiment: Experiment, files: Files, *, with_pool: bool | None = None) -> Datasets:
    """The datasets that an experiment names; what must be imported first is imported. StudyError with every fault.

    The pool is found where the mixture takes from it, or as `with_pool` says.
    """
    faults: list[Fault] = []
    takes = experiment.mixture.pretraining > 0 if with_pool is None else with_pool
    datasets = _datasets(experiment, files, faults, with_pool=takes)
    listed = _listed(experiment, faults)
    if faults:
        _axes(experiment, faults)  # whoever mends the data wants to hear of these in one go
        raise StudyError(faults)
    return datasets._replace(listed=listed)


def resolve(experiment: Experiment, datasets: Datasets) -> Study:
    """The study of an experiment on its datasets. Raises StudyError with every fault."""
    faults: list[Fault] = []
    techniques, bases = _axes(experiment, faults)
    faults += _unscored("adaptation", datasets.adaptation, experiment.evaluation)
    faults += _unscored("evaluation", datasets.evaluation, experiment.evaluation)
    concepts = _concepts(experiment, datasets, faults)
    faults += _untaught(experiment, datasets, {concept.dataset for concept in concepts})
    tasks = _tasks(experiment, concepts, faults)
    steps = {}
    try:
        steps = allot(experiment, len(tasks[experiment.seed[0]]))
    except StudyError as error:
        faults += [fault for fault in error.found if fault not in faults]
    if faults:
        raise StudyError(faults)
    settings = [
        _setting(experiment, datasets, spec, base, budget, tasks[seed], steps[spec, budget], seed)
        for spec, base in zip(experiment.model, bases, strict=True)
        for budget in experiment.budget
        for seed in experiment.seed
    ]
    return Study(experiment, datasets, grid(experiment.init, experiment.deploy, techniques, settings))


def check_weights(study: Study) -> None:
    """Every model's base weights can be read and fit its architecture. UserError names each tensor that does not."""
    from time_ray.clip.models import base_weights

    faults: list[str] = []
    for spec in study.experiment.model:
        try:
            base_weights(spec)
        except UserError as error:
            faults += error.faults
    UserError.unless_none(faults)


def _axes(experiment: Experiment, faults: list[Fault]) -> tuple[list[ResolvedTechnique], list[Base]]:
    techniques = [_technique(spec, i, faults) for i, spec in enumerate(experiment.technique)]
    bases = [_base(spec, i, faults) for i, spec in enumerate(experiment.model)]
    if not faults:
        faults += _same("technique", [(technique.label, technique.key) for technique in techniques])
        faults += _same("model", [(s.label, base.key) for s, base in zip(experiment.model, bases, strict=True)])
    return techniques, bases


def _same(axis: str, entries: Sequence[tuple[str, str]]) -> Iterator[Fault]:
    """Entries of an axis that are written differently and mean the same: their cells would be run twice."""
    first: dict[str, str] = {}
    for index, (label, key) in enumerate(entries):
        if key in first:
            yield (axis, index), f"'{label}' is the same as '{first[key]}'; keep one, a cell is run once"
        first.setdefault(key, label)


def _technique(spec: TechniqueSpec, index: int, faults: list[Fault]) -> ResolvedTechnique:
    place = ("technique", index)
    if "weight" in spec.params:
        owners = " or ".join(taken_by("weight"))
        text = f"weight belongs to the running merge; write init or deploy as {{name: {owners}, weight: ...}}"
        faults.append((place, text))
    try:
        params = merging.normalise(spec.name, spec.params, "merge")
        pair_params = merging.normalise(spec.name, spec.params, "pair")
    except merging.MergeError as error:
        faults += [(place, fault) for fault in error.faults]
        return ResolvedTechnique(spec.name, spec.name, 0, {}, {}, weighted=False, identity_of_one=False)
    pair_params.pop("weight", None)  # the strategy's, and part of the recipe beside the technique
    row = merging.TECHNIQUES[spec.name]
    said = ",".join(f"{k}={v}" for k, v in sorted(spec.params.items()))
    return ResolvedTechnique(
        spec.name,
        f"{spec.name}({said})" if said else spec.name,
        row.version,
        params,
        pair_params,
        weighted=row.takes_weight,
        identity_of_one=row.single_is_identity(params),
    )


def _datasets(experiment: Experiment, files: Files, faults: list[Fault], *, with_pool: bool) -> Datasets:
    data = experiment.data
    if data.root is not None and not Path(data.root).expanduser().is_dir():
        faults.append((("data", "root"), f"'{data.root}' is no folder; correct it, or import data there"))
        return Datasets((), (), None)
    adaptation = _sources("adaptation", data.adaptation, data.root, files, faults)
    evaluation = _sources("evaluation", data.evaluation, data.root, files, faults)
    pool: list[DatasetRef] = []
    if experiment.mixture.pretraining > 0 and data.pretraining is None:
        faults.append((("data", "pretraining"), "mixture.pretraining is above 0, but no pool is given; name one"))
    elif with_pool and data.pretraining is not None:
        pool = _sources("pretraining", (data.pretraining,), data.root, files, faults)
    names = [source.name for source in (*adaptation, *evaluation)]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [
        (("data",), f"dataset '{name}' is used twice; a name may stand once in adaptation and evaluation")
        for name in twice
    ]
    return Datasets(tuple(adaptation), tuple(evaluation), pool[0] if pool else None)


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


def _sources(
    role: Role, references: Sequence[str], root: str | None, files: Files, faults: list[Fault]
) -> list[DatasetRef]:
    found: list[DatasetRef] = []
    for reference in references:
        is_name = reference.split(":")[0] == MINI
        where = reference if root is None or is_name else str(Path(root).expanduser() / Path(reference).expanduser())
        try:
            found += find(where, role, files.path("data"), files.filesystem)
        except UserError as error:
            faults += [(("data", role), fault) for fault in error.faults]
    return found


def _base(spec: ModelSpec, index: int, faults: list[Fault]) -> Base:
    try:
        return Base(spec.name, weights_digest(spec))
    except UserError as error:
        faults += [(("model", index), fault) for fault in error.faults]
        return Base(spec.name, "")


def _listed(experiment: Experiment, faults: list[Fault]) -> tuple[Concept, ...] | None:
    if experiment.stream.file is None:
        return None
    try:
        return read_stream(experiment.stream.file)
    except UserError as error:
        faults += [(("stream", "file"), fault) for fault in error.faults]
        return None


def _concepts(experiment: Experiment, datasets: Datasets, faults: list[Fault]) -> tuple[Concept, ...]:
    """What arrives: the classes of the stream's file, else all of the data."""
    if datasets.listed is None:
        return tuple(Concept(source.name, name) for source in datasets.adaptation for name in source.classes)
    known = {source.name: source.classes for source in datasets.adaptation}
    concepts, found = in_terms_of(known, datasets.listed, str(experiment.stream.file))
    faults += [(("stream", "file"), fault) for fault in found]
    return concepts


def _tasks(experiment: Experiment, concepts: tuple[Concept, ...], faults: list[Fault]) -> dict[int, tuple[Task, ...]]:
    """The stream of each seed."""
    stream, count = experiment.stream, len(concepts)
    if stream.arrangement != "dataset_incremental":
        if stream.tasks is None:
            faults.append((("stream", "tasks"), f"a {stream.arrangement} stream needs a number of tasks"))
        elif count and stream.tasks > count:
            what = "adaptation data" if stream.file is None else "stream's file"
            text = f"{stream.tasks} tasks, but the {what} has only {count} classes; ask for fewer"
            faults.append((("stream", "tasks"), text))
    return {
        seed: cut(concepts, stream.arrangement, stream.tasks or 1, seed=seed, reverse=stream.reverse)
        for seed in experiment.seed
    }


def allot(experiment: Experiment, num_tasks: int) -> dict[tuple[ModelSpec, Budget], int]:
    """Steps of a task for every model and budget. Raises StudyError with every fault."""
    batch_size, faults = experiment.training.batch_size, list[Fault]()
    steps: dict[tuple[ModelSpec, Budget], int] = {}
    for place, spec in enumerate(experiment.model):
        cost = partial(_step_cost, spec.name, batch_size)
        for index, budget in enumerate(experiment.budget):
            try:
                steps[spec, budget] = budget.steps(batch_size, num_tasks, cost)
            except ValueError as error:
                faults.append((("budget", index), f"{error} ({spec.label})"))
            except UserError as error:
                faults += [(("model", place), fault) for fault in error.faults]
        same = [(budget.label, str(steps.get((spec, budget), budget.label))) for budget in experiment.budget]
        faults += [fault for fault in _same("budget", same) if fault not in faults]
    if faults:
        raise StudyError(faults)
    return steps


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
) -> Setting:
    training, mixture = experiment.training, experiment.mixture
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
        scoring=experiment.evaluation,
    )


def _own_rate(spec: ModelSpec) -> float:
    shipped = mini.MODELS.get(spec.name)
    return shipped.finetune_lr if shipped else DEFAULT_LR
