"""The Karcher mean and the geometric median: closed forms, their conditions, and mergekit's rule."""

import math

import pytest
import torch
from merging_toys import near, vector, world

from time_ray.merging import merge, pair


def merged(vectors, technique, **params):
    base = {"w": torch.zeros_like(vectors[0])}
    return merge(base, [{"w": one} for one in vectors], technique, **params)["w"]


def karcher_of_mergekit(vectors, steps=10, tolerance=1e-5):
    """Theirs: equal weights, from the mean direction along the mean of the logarithms."""
    norms = [one.norm() for one in vectors]
    units = [one / norm for one, norm in zip(vectors, norms, strict=True)]
    mean = sum(units) / sum(units).norm()
    for _ in range(steps):
        tangent = torch.zeros_like(mean)
        for unit in units:
            cosine = torch.dot(mean, unit).clamp(-1, 1)
            angle = torch.arccos(cosine)
            if angle >= tolerance:
                tangent += angle / torch.sin(angle) * (unit - cosine * mean) / len(units)
        if tangent.norm() < tolerance:
            break
        mean = torch.cos(tangent.norm()) * mean + torch.sin(tangent.norm()) * tangent / tangent.norm()
        mean /= mean.norm()
    return sum(norms) / len(norms) * mean


@pytest.mark.parametrize("spread", [0.02, 0.5, 3.0])
def test_karcher_is_what_mergekit_ran(spread):
    around = vector(200, 0)
    vectors = [around + spread * vector(200, seed) for seed in range(1, 6)]
    wanted = karcher_of_mergekit(vectors)
    assert (merged(vectors, "karcher") - wanted).norm() < 2e-5 * wanted.norm()  # they stop at steps of 1e-5


def test_karcher_is_where_all_arcs_cancel():
    vectors = [vector(20, 0) + vector(20, seed) for seed in range(1, 6)]
    found = merged(vectors, "karcher").double()
    mean, pull = found / found.norm(), torch.zeros(20, dtype=torch.float64)
    for one in vectors:
        unit = one.double() / one.double().norm()
        angle = torch.arccos(unit @ mean)
        pull += angle / torch.sin(angle) * (unit - (unit @ mean) * mean)
    assert pull.norm() < 1e-5
    assert found.norm().item() == pytest.approx(sum(one.norm().item() for one in vectors) / 5)


def test_karcher_of_two_unit_vectors_is_the_middle_of_their_arc():
    older, newer = ({"w": vector(20, seed) / vector(20, seed).norm()} for seed in (1, 2))
    base = {"w": torch.zeros(20)}
    assert near(merge(base, [older, newer], "karcher"), pair(base, older, newer, "slerp", weight=0.5))


def test_karcher_on_a_circle_is_the_mean_angle():
    at = [0.1, 0.5, 1.3, 1.9]
    points = [2 * torch.tensor([math.cos(angle), math.sin(angle)]) for angle in at]
    mean = sum(at) / 4
    wanted = 2 * torch.tensor([math.cos(mean), math.sin(mean)])
    assert torch.allclose(merged(points, "karcher"), wanted, atol=1e-6)


def test_karcher_without_directions():
    one, still = vector(9, 1), torch.zeros(9)
    assert torch.allclose(merged([still, one], "karcher"), one / 2, atol=1e-6)  # the direction of one, the mean length
    assert not merged([still, still], "karcher").any()
    assert torch.allclose(merged([one, -one], "karcher"), one, atol=1e-6)  # opposite: the first stays


def total_distance(point, points):
    return sum((point - one).norm() for one in points)


@pytest.mark.parametrize("count", [4, 7])
def test_nothing_is_nearer_to_all_than_the_geometric_median(count):
    points = [vector(5, seed).double() for seed in range(1, count + 1)]
    found = merged(points, "geometric_median")
    pull = sum((one - found) / (one - found).norm() for one in points)
    assert pull.norm() < 1e-5
    for seed in range(50):
        assert total_distance(found, points) <= total_distance(found + 1e-3 * vector(5, seed), points)


def test_the_median_of_a_triangle_is_its_fermat_point():
    corners = [torch.tensor(point) for point in ([0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2])]
    centre = torch.tensor([0.5, math.sqrt(3) / 6])
    assert torch.allclose(merged(corners, "geometric_median"), centre, atol=1e-6)
    blunt = [torch.tensor(point) for point in ([0.0, 0.0], [-1.0, 0.1], [1.0, 0.1])]
    assert torch.equal(merged(blunt, "geometric_median"), blunt[0])  # an angle above 120°: the corner itself


def test_one_expert_far_off_does_not_move_the_median():
    crowd = [vector(30, 0) + 0.01 * vector(30, seed) for seed in range(1, 6)]
    near_by, far_off = (merged([*crowd, far * torch.ones(30)], "geometric_median") for far in (10, 1000))
    assert torch.allclose(near_by, far_off, atol=2e-3)
    assert (near_by - sum(crowd) / 5).norm() < 0.1


def test_what_more_than_half_agree_on_is_the_median():
    one = vector(30, 1)
    assert torch.equal(merged([one, vector(30, 2), one, vector(30, 3), one], "geometric_median"), one)


def test_of_two_the_median_is_their_mean():
    base, experts = world(2)
    assert near(merge(base, experts, "geometric_median"), merge(base, experts, "average"), 1e-6)


def test_a_point_is_a_model_a_tower_or_a_tensor():
    base = {"visual.a": torch.zeros(3), "b": torch.zeros(3), "c": torch.zeros(2)}
    experts = [{name: vector(len(value), 10 * seed + len(name)) for name, value in base.items()} for seed in range(4)]
    groups = {"model": [[*base]], "tower": [["visual.a"], ["b", "c"]], "tensor": [[name] for name in base]}
    for scope, parts in groups.items():
        found = merge(base, experts, "geometric_median", scope=scope)
        for names in parts:
            joined = merged([torch.cat([one[name] for name in names]) for one in experts], "geometric_median")
            assert torch.allclose(torch.cat([found[name] for name in names]), joined, atol=1e-6)
