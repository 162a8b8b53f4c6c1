"""Which tensors are weights of linear layers, and the matrices in them."""

from math import prod

from torch import Tensor

from time_ray.merging.pieces import TensorEntry

FUSED = "in_proj_weight"
"""Query, key and value in one tensor."""


def matrix_shape(entry: TensorEntry) -> tuple[int, int, int] | None:
    """(number of matrices, rows, columns) of a linear layer's weight; None for all other tensors.

    Embeddings and the projections to the shared space (`visual.proj`, `text_projection`) are no linear layers here.
    """
    if len(entry.shape) != 2 or not prod(entry.shape):
        return None
    if not entry.name.endswith("weight") or "embedding" in entry.name:
        return None
    rows, columns = entry.shape
    parts = 3 if entry.name.endswith(FUSED) and rows % 3 == 0 else 1
    return parts, rows // parts, columns


def matrices(values: Tensor, entry: TensorEntry) -> Tensor | None:
    """The matrices [parts, rows, columns] of a linear layer's weight, else None."""
    shape = matrix_shape(entry)
    return None if shape is None else values.view(shape)
