"""The datasets that an experiment names: found, each in its role, and able to do what it is there for."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from time_ray.clip.expert_files import GivenExperts
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.home import at_home
from time_ray.core.scoring import Scoring
from time_ray.core.stream import Concept
from time_ray.data.dataset import Data
from time_ray.data.sources import MINI, DatasetRef, Role, find
from time_ray.data.subset import PROMPTS
from time_ray.store.files import Files
from time_ray.study.faults import Fault, Faults


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


def named_datasets(experiment: Experiment, files: Files, *, with_pool: bool) -> Datasets:
    """The datasets that an experiment names, without its stream and experts. Raises StudyError with every fault."""
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


def unscored(role: Role, sources: Sequence[DatasetRef], scoring: Scoring) -> Iterator[Fault]:
    """Datasets that have nothing to be scored on."""
    for source in sources:
        if source.lacks and not (source.lacks == PROMPTS and scoring.templates):
            text = f"no {source.lacks}, so it cannot be scored; leave it out or import it with some"
            yield ("data", role), f"dataset {source.name}: {text}"


def untaught(experiment: Experiment, datasets: Datasets, learned: Collection[str]) -> Iterator[Fault]:
    """Datasets that are to be learned from, but have nothing for it."""
    if experiment.mixture.update > 0 and datasets.experts is None:
        for source in datasets.adaptation:
            if source.name in learned and not source.teaches:
                text = "no training images, so it cannot be learned; use it for evaluation"
                yield ("data", "adaptation"), f"dataset {source.name}: {text}"
    if datasets.pretraining and not datasets.pretraining.teaches:
        text = "no training images, so it is no pool; name another dataset"
        yield ("data", "pretraining"), f"dataset {datasets.pretraining.name}: {text}"
