"""Singular values and vectors of matrices by way of their Gram matrices, in float64.

The Gram matrix of a matrix's shorter side has its squared singular values for eigenvalues. Squaring costs half of the
digits, so it is done in float64: down to a millionth of the largest singular value the vectors are then more exact than
those of a decomposition in float32, and long matrices and accelerators take a fraction of the time.
"""

from typing import NamedTuple

import torch
from torch import Tensor

RESOLVED = 1e-6
"""A singular value above this share of the largest has vectors that are good to float32."""
DIRECTION = 1e-5
"""A singular value below this share of the largest is what rounding left, and its vectors point nowhere."""


class Svd(NamedTuple):
    """U [..., m, r], the singular values [..., r] from the largest on, and Vᵀ [..., r, n]."""

    u: Tensor
    values: Tensor
    vh: Tensor


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and vectors of a symmetric matrix; NaN where squares were too large, as LAPACK would only fail."""
    if not bool(gram.isfinite().all()):
        return gram.new_full(gram.shape[:-1], torch.nan), gram.new_full(gram.shape, torch.nan)
    values, vectors = torch.linalg.eigh(gram)
    return values, vectors


def eigen_svd(matrices: Tensor, count: int | None = None) -> Svd:
    """The thin decomposition in float64, of matrices [..., m, n]; without vectors where a value is exactly 0.

    `count`: the largest values alone.
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    long = (matrices.mT if wide else matrices).double()
    squares, vectors = eigen(long.mT @ long)
    values, short_side = squares.clamp(min=0).sqrt().flip(-1)[..., :count], vectors.flip(-1)[..., :count]
    inverse = torch.where(values > 0, 1 / values, 0.0)
    long_side = long @ (short_side * inverse[..., None, :])
    return Svd(short_side, values, long_side.mT) if wide else Svd(long_side, values, short_side.mT)


def thin_svd(matrices: Tensor) -> Svd:
    """The thin decomposition of matrices [..., m, n], in their precision; LAPACK's where squares are too coarse."""
    if matrices.dtype != torch.float64:
        found = eigen_svd(matrices)
        if bool((found.values[..., -1] > RESOLVED * found.values[..., 0]).all()):
            return Svd(*(part.to(matrices.dtype) for part in found))
    return Svd(*torch.linalg.svd(matrices, full_matrices=False))


def leading_svd(matrices: Tensor, count: int) -> Svd:
    """The `count` largest singular values, at most all, and their vectors.

    A value that is nothing but the rounding of the matrix is 0, and so are its vectors: it has no direction.
    """
    u, values, vh = eigen_svd(matrices, count)
    real = (values > DIRECTION * values[..., :1]).double()
    kept = u * real[..., None, :], values * real, vh * real[..., None]
    return Svd(*(part.to(matrices.dtype) for part in kept))


def orthonormal(columns: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns: U Vᵀ of [..., m, k] = U Σ Vᵀ.

    Where columns depend on each other U and V have no direction of their own, and U Vᵀ leaves it out.
    """
    exact = columns.double()
    squares, vectors = eigen(exact.mT @ exact)
    root = torch.where(squares > DIRECTION**2 * squares[..., -1:], squares.clamp(min=0).rsqrt(), 0.0)
    turned: Tensor = exact @ (vectors * root[..., None, :]) @ vectors.mT
    return turned.to(columns.dtype)
