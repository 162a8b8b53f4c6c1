"""Numbers at the ends of what floats hold: the right result, or a line that says so."""

import pytest
import torch
from merging_toys import same, world

from time_ray.merging import MergeError, merge

NEEDS_SQUARES = ["geometric_median", "iso_c", "iso_cts", "karcher", "null_space", "opcm", "tsv_m"]


@pytest.mark.parametrize(
    ("weights", "plain"),
    [([1e308, 1.5e308], [2, 3]), ([2e-50, 1e-50], [2, 1]), ([5e-324, 1e-323], [1, 2]), ([0, 1e-45], [0, 1])],
)
def test_weights_are_shares_however_large_or_small(weights, plain):
    base, experts = world(2)
    wanted = merge(base, experts, "average", weights=plain)
    found = merge(base, experts, "average", weights=weights)
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-6, atol=0) for name in wanted)


def test_a_power_of_two_in_all_weights_changes_no_bit():
    base, experts = world(3)
    found, wanted = (merge(base, experts, "average", weights=weights) for weights in ([0.1, 0.2, 0.7], [0.8, 1.6, 5.6]))
    assert same(found, wanted)


@pytest.mark.parametrize("technique", NEEDS_SQUARES)
def test_what_is_too_large_to_be_squared_is_a_line(technique):
    base, experts = world(2, torch.float64)
    large = [
        {name: value * 1e200 if value.is_floating_point() else value for name, value in one.items()} for one in experts
    ]
    try:
        merged = merge(base, large, technique)
    except MergeError as error:
        assert all("the merged values are too large for float64" in fault for fault in error.faults)  # noqa: PT017
    else:
        assert all(bool(value.isfinite().all()) for value in merged.values())
