"""Which tensors hold matrices, and the matrices in them."""

from collections.abc import Callable
from math import prod

from torch import Tensor

from time_ray.merging.pieces import TensorEntry

MatricesOf = Callable[[Tensor, TensorEntry], Tensor | None]
"""The matrices [parts, rows, columns] in the values of a tensor; None if it holds none."""

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


def linear_layers(values: Tensor, entry: TensorEntry) -> Tensor | None:
    """The matrices [parts, rows, columns] of a linear layer's weight, else None."""
    shape = matrix_shape(entry)
    return None if shape is None else values.view(shape)


def every_matrix(values: Tensor, entry: TensorEntry) -> Tensor | None:
    """A 2-D tensor as one matrix [1, rows, columns], fused projections whole; None for all others.

    None also for the text projection, as in the code of Iso-C's authors.
    """
    if len(entry.shape) != 2 or not prod(entry.shape) or "text_projection" in entry.name:
        return None
    return values.view(1, *entry.shape)
