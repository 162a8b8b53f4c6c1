"""Weights that users give, base or experts, checked against the architectures of a study before anything runs."""

from pathlib import Path

from time_ray.core.errors import UserError
from time_ray.study.study import Study


def check_weights(study: Study) -> None:
    """Every model's base weights can be read and fit its architecture. UserError names each tensor that does not.

    Shipped ones do: their digest is known. Those of given experts are compared by names and shapes.
    """
    check_experts(study)
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


def check_experts(study: Study) -> None:
    """Given experts have the tensors of their models. UserError names each that does not fit; no value is read."""
    given = study.datasets.experts
    if given is None:
        return
    from time_ray.clip.models import unfit

    files = [(spec, Path(file.path)) for spec in study.experiment.model for file in given[spec.name].values()]
    UserError.unless_none(fault for spec, path in dict.fromkeys(files) for fault in unfit(spec, path))
