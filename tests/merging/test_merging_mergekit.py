"""The numbers of mergekit 0.1.5 where its definitions are ours (optional: pip install mergekit==0.1.5 --no-deps)."""

import warnings

import pytest
import torch
from merging_toys import near, vector

from time_ray.merging import merge

api = None
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    api = pytest.importorskip("mergekit.merge_methods.api", reason="mergekit is not installed (optional)")

SHAPES = {"a": (50, 20), "b": (10, 100)}  # 1,000 elements each: shares are whole numbers of elements


def world(count=4):
    base = {name: vector(1000, seed).view(shape) for seed, (name, shape) in enumerate(SHAPES.items())}
    experts = [
        {
            name: value + 0.1 * (vector(1000, 10 * number + seed) + vector(1000, 7 + seed)).view(value.shape)
            for seed, (name, value) in enumerate(base.items())
        }
        for number in range(1, count + 1)
    ]
    return base, experts


def theirs(base, experts, method, **parameters):
    models = {"base": base, **{str(number): expert for number, expert in enumerate(experts)}}
    return api.merge_state_dicts(models, method, base="base", parameters=parameters)


@pytest.mark.parametrize(
    ("ours", "params", "method", "parameters"),
    [
        ("task_arithmetic", {"scaling": 0.4}, "task_arithmetic", {"weight": 1.0, "lambda": 0.4}),
        ("ties", {"scope": "tensor", "exact_k": True}, "ties", {"weight": 1.0, "density": 0.2}),
        (
            "ties",
            {"scope": "tensor", "exact_k": True, "keep": 0.5, "aggregate": "sum", "scaling": 0.7},
            "ties",
            {"weight": 1.0, "density": 0.5, "normalize": False, "lambda": 0.7},
        ),
        (
            "breadcrumbs",
            {"scope": "tensor", "scaling": 1.0},
            "breadcrumbs",
            {"weight": 1.0, "density": 0.29, "gamma": 0.01},
        ),
        (
            "breadcrumbs_ties",
            {"scope": "tensor"},
            "breadcrumbs_ties",
            {"weight": 1.0, "density": 0.29, "gamma": 0.01, "normalize": True},
        ),
        ("model_stock", {}, "model_stock", {}),
    ],
)
def test_with_a_base(ours, params, method, parameters):
    base, experts = world()
    assert near(merge(base, experts, ours, **params), theirs(base, experts, method, **parameters), 2e-6)


def test_linear_is_average():
    base, experts = world()
    expected = api.merge_state_dicts(experts, "linear", parameters={"weight": [1.0, 2.0, 3.0, 4.0]})
    assert near(merge(base, experts, "average", weights="linear"), expected)


def test_slerp_turns_from_base_to_other():
    base, (expert, *_) = world()
    far = {name: vector(1000, 99).view(value.shape) for name, value in expert.items()}
    assert near(merge(base, [base, far], "slerp", weight=0.3), theirs(base, [far], "slerp", t=0.3), 1e-5)


def test_ties_scope_matters():
    """Per tensor (mergekit) and per tower (the original) are different functions."""
    base, experts = world()
    tower = merge(base, [{**expert, "a": base["a"] + 5 * (expert["a"] - base["a"])} for expert in experts], "ties")
    assert torch.equal(tower["b"], base["b"])
