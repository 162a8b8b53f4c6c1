"""Weights as people have them in a file: read as `time-ray merge` reads a base, by the same rules."""

from pathlib import Path

import torch
from torch import Tensor

from time_ray.core.errors import UserError
from time_ray.merging.compatibility import unmergeable
from time_ray.merging.errors import MergeError
from time_ray.merging.models import Model
from time_ray.merging.opening import open_model


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, as stored, without what wrappers add to their names.

    Raises UserError, with every tensor of a kind that no model has, for anything else.
    """
    model = _opened(path)
    # copies, as the file may change, and may be mapped askew
    return {entry.name: model.read(entry, 0, entry.size).view(entry.shape).clone() for entry in model.entries}


def read_outline(path: Path) -> dict[str, Tensor]:
    """What `read_weights` gives, without memory behind the tensors: of safetensors files only the header is read."""
    return {entry.name: torch.empty(entry.shape, dtype=entry.dtype, device="meta") for entry in _opened(path).entries}


def _opened(path: Path) -> Model:
    try:
        model = open_model(path, str(path))
        MergeError.unless_none(unmergeable(model))
    except MergeError as error:
        raise UserError(*error.faults) from error
    return model
