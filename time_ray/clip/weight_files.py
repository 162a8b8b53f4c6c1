"""Weights as people have them in a file: read as `time-ray merge` reads a base, by the same rules."""

from pathlib import Path

from torch import Tensor

from time_ray.core.errors import UserError
from time_ray.merging.compatibility import unmergeable
from time_ray.merging.errors import MergeError
from time_ray.merging.opening import open_model


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, as stored, without what wrappers add to their names.

    Raises UserError, with every tensor of a kind that no model has, for anything else.
    """
    try:
        model = open_model(path, str(path))
        MergeError.unless_none(unmergeable(model))
    except MergeError as error:
        raise UserError(*error.faults) from error
    # copies, as the file may change, and may be mapped askew
    return {entry.name: model.read(entry, 0, entry.size).view(entry.shape).clone() for entry in model.entries}
