"""Models with BatchNorm in an experiment: which they are, and what cannot be asked of them."""

from collections.abc import Iterable, Iterator

from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.model_needs import has_batch_norm
from time_ray.study.faults import Fault, Faults


def with_batch_norm(experiment: Experiment) -> tuple[ModelSpec, ...]:
    """The models with BatchNorm, where something depends on it. Raises StudyError with every fault."""
    faults, found = Faults(), list[ModelSpec]()
    for index, spec in enumerate(experiment.model):
        if experiment.batch_norm.num_batches is not None or _micro_batches(experiment, spec) > 1:
            with faults.at("model", index):
                found += [spec] if has_batch_norm(spec.name) else []
    faults.unless_none()
    return tuple(found)


def accumulated(experiment: Experiment, normed: Iterable[ModelSpec]) -> Iterator[Fault]:
    """Micro-batches that are asked of models with BatchNorm."""
    for spec in normed:
        if _micro_batches(experiment, spec) > 1:
            text = f"model {spec.label} has BatchNorm, whose statistics are of whole batches; set it to 1"
            place = ("run", *experiment.run.place(spec, "accumulate"))
            yield place, f"{text}, and for less memory use more run.workers"


def _micro_batches(experiment: Experiment, spec: ModelSpec) -> int:
    return experiment.run.of(spec).accumulate or 1
