"""The axes that need more than the experiment: techniques with all parameters, models with the digest of their base."""

from time_ray.clip.preprocessing import resolve as resolve_preprocessing
from time_ray.clip.weights import known_name, weights_digest
from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Base, ResolvedTechnique
from time_ray.study.faults import Faults, Place, same
from time_ray.study.techniques import check_ranges, resolved_technique


def axes(experiment: Experiment) -> tuple[list[ResolvedTechnique], list[Base]]:
    """The techniques and the base of each model. Raises StudyError with every fault."""
    faults, techniques, bases = Faults(), list[ResolvedTechnique](), list[Base]()
    for index, technique in enumerate(experiment.technique):
        with faults.at("technique", index):
            check_ranges(technique)
            techniques.append(resolved_technique(technique.fixed))
    for index, model in enumerate(experiment.model):
        with faults.at():
            bases.append(_base(model, ("model", index)))
    faults.unless_none()
    named = zip(experiment.technique, techniques, strict=True)
    faults.add(same("technique", [(spec.label, spec.label if spec.ranges else one.entry_key) for spec, one in named]))
    faults.add(same("model", [(spec.label, base.key) for spec, base in zip(experiment.model, bases, strict=True)]))
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
