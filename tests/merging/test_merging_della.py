"""DELLA's drop, against its rule and the authors' code with the same draws."""

import pytest
import torch
from merging_toys import vector

from time_ray.merging import merge
from time_ray.merging.della import RankedDrop
from time_ray.merging.masks import draws, keep_mask, keep_mask_of

SHAPE = (6, 50)


def vectors(count):
    return [vector(300, seed).view(SHAPE) for seed in range(1, count + 1)]


def uniform(seed, expert, name="w"):
    """The draw of each element as a number from 0 to 1."""
    return (draws((str(seed), expert, name), 0, 300).double() / 2**32 + 0.5).view(SHAPE)


def drop_of_its_authors(rows, density, epsilon, uniforms):
    """Theirs, with given draws for torch.bernoulli: ranks from 1 within each row, kept with density ± epsilon."""
    ranks = torch.zeros_like(rows)
    order = torch.argsort(rows.abs(), dim=1)
    for row, places in enumerate(order):
        ranks[row][places] = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype)
    spread = (ranks - 1) / (rows.shape[1] - 1)
    kept = (density - epsilon) + spread * (2 * epsilon)
    return rows * (uniforms < kept) / kept


def merge_of_its_authors(sparse):
    """Signs by the sum; the sum of what agrees over how many do."""
    agree = torch.stack(sparse).sign() == (sum(sparse) >= 0) * 2 - 1
    return (torch.stack(sparse) * agree).sum(0) / agree.sum(0).clamp(min=1)


@pytest.mark.parametrize(("drop", "epsilon"), [(0.7, 0.15), (0.5, 0.45), (0.3, 0.0)])
def test_della_is_what_its_authors_ran(drop, epsilon):
    experts = vectors(3)
    # Below: their condition for a kept element is ours for the same draw, read from the other end.
    sparse = [
        drop_of_its_authors(one, 1 - drop, epsilon, 1 - uniform(5, str(number)))
        for number, one in enumerate(experts, 1)
    ]
    found = merge(
        {"w": torch.zeros(SHAPE)},
        [{"w": one} for one in experts],
        "della",
        drop=drop,
        epsilon=epsilon,
        seed=5,
        scaling=0.8,
    )["w"]
    voted = sum(sparse) != 0  # what cancels, or is dropped by all, they take for positive: it is 0 either way
    assert torch.allclose(found[voted], 0.8 * merge_of_its_authors(sparse)[voted], atol=1e-6)
    assert not found[~voted].any()


def test_without_epsilon_it_is_dare():
    experts = [{"w": one} for one in vectors(3)]
    base = {"w": torch.zeros(SHAPE)}
    found = merge(base, experts, "della", drop=0.6, epsilon=0.0, seed=2)
    assert torch.allclose(found["w"], merge(base, experts, "dare_ties", drop=0.6, seed=2)["w"], atol=1e-6)


def test_probabilities_fall_evenly_with_rank():
    row = torch.tensor([[0.1, -3.0, 2.0, 0.0, 0.5]])
    found = RankedDrop(0.5, 0.2, "row", 0).probabilities(row)
    assert torch.allclose(found, torch.tensor([[0.6, 0.3, 0.4, 0.7, 0.5]]))
    assert torch.allclose(RankedDrop(0.9, 0.2, "row", 0).probabilities(row)[0, 3], torch.tensor(1.0))
    assert torch.equal(RankedDrop(0.5, 0.2, "row", 0).probabilities(torch.ones(3, 1)), torch.full((3, 1), 0.5))
    equal = RankedDrop(0.5, 0.2, "row", 0).probabilities(torch.ones(1, 3))
    assert torch.allclose(equal, torch.tensor([[0.7, 0.5, 0.3]]))


def test_large_elements_survive_more_often_and_none_is_biased():
    base, one = {"w": torch.zeros(1, 1000)}, torch.arange(1, 1001.0).view(1, 1000)
    found = torch.stack(
        [merge(base, [{"w": one}], "della", drop=0.5, epsilon=0.4, seed=seed)["w"][0] for seed in range(80)]
    )
    kept = (found != 0).double().mean(dim=0)
    assert kept[:100].mean() == pytest.approx(0.14, abs=0.03)
    assert kept[-100:].mean() == pytest.approx(0.86, abs=0.03)
    assert found.mean(dim=0).sum().item() == pytest.approx(one.sum().item(), rel=0.02)


def test_ranks_within_a_tensor():
    experts = vectors(2)
    params = {"drop": 0.5, "epsilon": 0.3, "seed": 1}
    flat = [{"w": one.view(1, 300)} for one in experts]
    by_tensor = merge({"w": torch.zeros(SHAPE)}, [{"w": one} for one in experts], "della", scope="tensor", **params)
    by_row = merge({"w": torch.zeros(1, 300)}, flat, "della", **params)
    assert torch.equal(by_tensor["w"].view(1, 300), by_row["w"])


def test_masks_of_equal_probabilities_are_those_of_one():
    for drop in (0.0, 0.3, 1.0):
        like = torch.full((4000,), drop)
        assert torch.equal(keep_mask_of(("1", "a"), 7, like), keep_mask(("1", "a"), 7, 4007, drop, like))
