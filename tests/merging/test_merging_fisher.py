"""Fisher merging: the optimum of quadratics, BECAME's rate, and moments as AdamW has them."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from time_ray import merging
from time_ray.merging import MergeError

Model = dict[str, Tensor]


def drawn(count: int, seed: int = 0) -> tuple[list[Model], list[Model]]:
    """Experts in float64, and how curved the loss of each is around it."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 4), "b": (5,)}

    def model() -> Model:
        return {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}

    experts, curvatures = [model() for _ in range(count)], [model() for _ in range(count)]
    return experts, [{name: tensor.exp() for name, tensor in one.items()} for one in curvatures]


def loss(model: Model, experts: Sequence[Model], curvatures: Sequence[Model]) -> float:
    """The sum of quadratics, each least at its expert."""
    return sum(
        float((curvature[name] * (model[name] - expert[name]) ** 2).sum())
        for expert, curvature in zip(experts, curvatures, strict=True)
        for name in model
    )


def flat(model: Model) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in model.values()])


def between(one: Model, other: Model, share: float) -> Model:
    return {name: torch.lerp(one[name], other[name], share) for name in one}


@pytest.mark.parametrize("count", [2, 4])
def test_by_element_it_is_the_joint_optimum_of_quadratics(count: int) -> None:
    experts, curvatures = drawn(count)
    merged = merging.fisher_merge(experts, curvatures, rate="element")
    for name, found in merged.items():
        gradient = sum(2 * curvatures[i][name] * (found - experts[i][name]) for i in range(count))
        torch.testing.assert_close(gradient, torch.zeros_like(found), atol=1e-12, rtol=0)


def test_by_model_it_is_the_best_point_between_two() -> None:
    experts, curvatures = drawn(2)
    merged = merging.fisher_merge(experts, curvatures)
    shares = [(merged[name] - experts[0][name]) / (experts[1][name] - experts[0][name]) for name in merged]
    rate = float(shares[0].flatten()[0])
    assert all(torch.allclose(share, torch.tensor(rate, dtype=torch.float64), atol=1e-5) for share in shares)
    least = loss(between(*experts, rate), experts, curvatures)
    assert 0 < rate < 1
    assert all(
        loss(between(*experts, other), experts, curvatures) >= least for other in torch.linspace(0, 1, 101).tolist()
    )


def test_rates_follow_the_paper_step_by_step() -> None:
    """λ_t = d^T F_t d / d^T (Λ_{t-1} + F_t) d, Λ_t = Λ_{t-1} + F_t, number by number in plain Python."""
    experts, curvatures = drawn(4, seed=3)
    old, new = ([flat(one).tolist() for one in models] for models in (experts, curvatures))
    merged, precision = old[0], new[0]
    for expert, fisher in zip(old[1:], new[1:], strict=True):
        way = [b - a for a, b in zip(merged, expert, strict=True)]
        top = sum(f * d * d for f, d in zip(fisher, way, strict=True))
        precision = [p + f for p, f in zip(precision, fisher, strict=True)]
        rate = top / sum(p * d * d for p, d in zip(precision, way, strict=True))
        merged = [m + rate * d for m, d in zip(merged, way, strict=True)]
    found = merging.fisher_merge(experts, curvatures)
    torch.testing.assert_close(flat(found), torch.tensor(merged, dtype=torch.float64), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rate", ["model", "element"])
def test_experts_that_are_equally_sure_are_averaged(rate: str) -> None:
    experts, _ = drawn(3)
    for value in (2.0, 0.0):  # 0: nothing is known of any
        same = [{name: torch.full_like(tensor, value) for name, tensor in experts[0].items()}] * 3
        found = merging.fisher_merge(experts, same, rate=rate)  # type: ignore[arg-type]
        wanted = merging.merge(experts[0], experts, "average")
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6)


def test_an_expert_that_is_much_surer_wins() -> None:
    experts, curvatures = drawn(2)
    sure = [curvatures[0], {name: 1e9 * tensor for name, tensor in curvatures[1].items()}]
    for found in (merging.fisher_merge(experts, sure), merging.fisher_merge(experts, sure, rate="element")):
        for name, tensor in experts[1].items():
            torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


def test_running_statistics_are_averaged_and_types_are_kept() -> None:
    statistics = [{"bn.running_var": torch.full((2,), value), "n": torch.tensor(int(value))} for value in (1.0, 3.0)]
    experts = [{"w": torch.ones(2, dtype=torch.bfloat16) * number, **one} for number, one in enumerate(statistics, 1)]
    found = merging.fisher_merge(experts, [{"w": torch.ones(2)}] * 2)
    assert found["w"].dtype == torch.bfloat16
    assert found["w"].tolist() == [1.5, 1.5]
    assert found["bn.running_var"].tolist() == [2.0, 2.0]
    assert found["n"] == 3


def test_moments_are_those_of_adamw_without_their_bias() -> None:
    """With the same gradient in every step its square is found, however few steps there were."""
    module = nn.ModuleDict({"used": nn.Linear(3, 1, bias=False), "idle": nn.Linear(2, 1, bias=False)})
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        module["used"](torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        optimizer.step()
    found = merging.second_moments(module, optimizer)
    torch.testing.assert_close(found["used.weight"], torch.tensor([[1.0, 4.0, 0.25]]))
    assert found["idle.weight"].tolist() == [[0.0, 0.0]]


def test_every_fault_is_a_line() -> None:
    experts, curvatures = drawn(2)
    with pytest.raises(MergeError, match="moments: 1 for 2 experts; give one for each, oldest first"):
        merging.fisher_merge(experts, curvatures[:1])
    with pytest.raises(MergeError, match="experts: none is given"):
        merging.fisher_merge([], [])
    wrong = [{"a": -curvatures[0]["a"]}, curvatures[1]]
    with pytest.raises(MergeError) as caught:
        merging.fisher_merge([experts[0], {**experts[1], "b": torch.ones(2)}], wrong)
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "moments 1: a has values that no square has",
        "moments 1: b is not there in the shape of the weights",
        "expert 2: b is not as in expert 1",
    ]


def test_models_that_do_not_fit_or_are_broken_are_lines() -> None:
    experts, curvatures = drawn(2)
    broken = {**experts[1], "a": torch.full_like(experts[1]["a"], torch.nan), "more": torch.ones(1)}
    del broken["b"]
    whole = [{**experts[0], "c": torch.tensor(1)}, {**broken, "c": torch.tensor(1.0)}]
    with pytest.raises(MergeError) as caught:
        merging.fisher_merge(whole, curvatures)
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "expert 2: a holds NaN or Inf",
        "expert 2: b is not as in expert 1",
        "expert 2: c is not as in expert 1",
        "expert 2: more is not as in expert 1",
    ]


def test_what_is_too_large_to_be_squared_is_a_line() -> None:
    experts, curvatures = drawn(2)
    large = [{name: 1e30 * tensor.float() for name, tensor in one.items()} for one in experts]
    with pytest.raises(MergeError, match="a: values are too large to be squared"):
        merging.fisher_merge(large, curvatures)


def test_float64_is_merged_in_float64() -> None:
    experts, curvatures = drawn(1)
    assert torch.equal(merging.fisher_merge(experts, curvatures)["a"], experts[0]["a"])
