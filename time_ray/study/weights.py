"""Weights that users give, base or experts, checked against the architectures of a study before anything runs."""

from collections.abc import Container
from pathlib import Path

from time_ray.core.errors import UserError
from time_ray.study.experts import given_in
from time_ray.study.study import Study


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
        (model, Path(given.path))
        for model, expert in given_in(study.settings)
        if (given := expert.training.given) is not None and expert.key not in stored
    ]
    if not files:
        return
    from time_ray.clip.models import unfit

    UserError.unless_none(fault for spec, path in dict.fromkeys(files) for fault in unfit(spec, path))
