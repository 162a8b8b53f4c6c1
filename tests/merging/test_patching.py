"""Patching: the line through base and model, and how far along it a model is."""

import pytest
import torch

from time_ray import merging

BASE = {
    "layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "norm.running_var": torch.tensor([1.0, 1.0]),
    "norm.num_batches_tracked": torch.tensor(3),
}
MODEL = {
    "layer.weight": torch.tensor([[2.0, 2.0], [3.0, 0.0]]),
    "norm.running_var": torch.tensor([3.0, 0.5]),
    "norm.num_batches_tracked": torch.tensor(8),
}


@pytest.mark.parametrize("length", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_weights_lie_on_the_line(length: float) -> None:
    found = merging.patch(BASE, MODEL, length)
    wanted = BASE["layer.weight"] + length * (MODEL["layer.weight"] - BASE["layer.weight"])
    assert torch.equal(found["layer.weight"], wanted)
    assert merging.distance(BASE, found) == pytest.approx(length * merging.distance(BASE, MODEL))


def test_it_is_task_arithmetic_of_one_expert() -> None:
    torch.manual_seed(0)
    base, model = ({"w": torch.randn(5, 7)} for _ in range(2))
    merged = merging.merge(base, [model], "task_arithmetic", scaling=0.3)
    torch.testing.assert_close(merging.patch(base, model, 0.3), merged)


def test_statistics_are_never_extrapolated() -> None:
    assert merging.patch(BASE, MODEL, 0.5)["norm.running_var"].tolist() == [2.0, 0.75]
    assert torch.equal(merging.patch(BASE, MODEL, 4.0)["norm.running_var"], MODEL["norm.running_var"])
    assert merging.patch(BASE, MODEL, 0.5)["norm.num_batches_tracked"] == 8


def test_small_floats_are_moved_in_float32_and_keep_their_type() -> None:
    base, model = ({"w": torch.tensor([value], dtype=torch.bfloat16)} for value in (1.0, 1.0078125))
    found = merging.patch(base, model, 0.9)
    assert found["w"].dtype == torch.bfloat16
    assert found["w"].item() == torch.tensor(1.0 + 0.9 * 0.0078125).bfloat16().item()


def test_distance_is_that_of_weights() -> None:
    assert merging.distance(BASE, MODEL) == pytest.approx((1 + 16) ** 0.5 / 30**0.5)
    assert merging.distance(BASE, BASE) == 0
