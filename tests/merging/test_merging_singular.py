"""Decompositions by Gram matrices: as exact as float64 allows, and plain about what has no direction."""

import pytest
import torch
from merging_toys import vector

from time_ray.merging.singular import leading_svd, orthonormal, thin_svd


def with_values(rows, columns, values):
    """A matrix with these singular values."""
    size = len(values)
    u, _ = torch.linalg.qr(vector(rows * size, 1).view(rows, size).double())
    v, _ = torch.linalg.qr(vector(columns * size, 2).view(columns, size).double())
    return (u * torch.tensor(values, dtype=torch.float64)) @ v.T


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (20, 20)])
def test_a_thin_decomposition_is_more_exact_than_one_in_float32(shape):
    size = min(shape)
    exact = with_values(*shape, [10 ** (-4 * i / (size - 1)) for i in range(size)]).float()
    found, wanted = thin_svd(exact), torch.linalg.svd(exact.double(), full_matrices=False)
    assert torch.allclose(found.values.double(), wanted.S, rtol=0, atol=1e-7)
    polar, in_float32 = wanted.U @ wanted.Vh, torch.linalg.svd(exact, full_matrices=False)
    gap = (found.u.double() @ found.vh.double() - polar).abs().max()
    assert gap < 1e-6
    assert gap <= ((in_float32.U @ in_float32.Vh).double() - polar).abs().max()
    assert torch.allclose((found.u * found.values) @ found.vh, exact, atol=1e-6)


@pytest.mark.parametrize("values", [[1.0, 0.5, 0.0], [1.0, 0.5, 1e-9], [0.0, 0.0, 0.0]])
def test_where_squares_are_too_coarse_vectors_are_orthonormal_all_the_same(values):
    u, found, vh = thin_svd(with_values(9, 3, values).float())
    assert torch.allclose(u.T @ u, torch.eye(3), atol=1e-5)
    assert torch.allclose(vh @ vh.T, torch.eye(3), atol=1e-5)
    assert torch.allclose(found, torch.tensor(values), atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_values_without_length_have_no_vectors(shape, dtype):
    matrix = with_values(*shape, [2.0, 1.0, 1e-9]).to(dtype)
    u, values, vh = leading_svd(matrix[None], 4)
    assert values[0].tolist() == pytest.approx([2, 1, 0, 0])
    assert not u[0, :, 2:].any()
    assert not vh[0, 2:].any()
    assert torch.allclose((u * values[:, None]) @ vh, matrix[None], atol=1e-6)
    assert leading_svd(matrix[None], 1).values[0].tolist() == pytest.approx([2])


def test_the_nearest_orthonormal_columns():
    columns = vector(60, 3).view(10, 6)
    u, _, vh = torch.linalg.svd(columns)
    assert torch.allclose(orthonormal(columns), u[:, :6] @ vh, atol=1e-6)
    twice = torch.cat((columns, columns), dim=1)  # each direction is shared by two columns
    assert torch.allclose(orthonormal(twice), torch.cat((u[:, :6] @ vh, u[:, :6] @ vh), dim=1) / 2**0.5, atol=1e-6)
    assert not orthonormal(torch.zeros(4, 2)).any()
