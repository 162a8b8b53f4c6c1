"""Requests that cannot be met: every fault at once, each with what to do; and the form of parameters in keys."""

import json

import pytest
from merging_toys import same, world

from time_ray.merging import TECHNIQUES, MergeError, ema, merge, normalise, pair


@pytest.mark.parametrize(
    ("technique", "params", "faults"),
    [
        ("tis", {}, ["technique: 'tis' is unknown; did you mean 'ties'?"]),
        (
            "ties",
            {"kep": 1, "keep": 3, "scope": "row", "exact_k": 1},
            [
                "ties: unknown parameter 'kep'; did you mean 'keep'?",
                "ties: keep is 3; give a number from 0 to 1",
                "ties: scope is 'row'; give one of tower, model, tensor",
                "ties: exact_k is 1; give true or false",
            ],
        ),
        (
            "task_arithmetic",
            {"scaling": 0.3, "lines": {}},
            ["task_arithmetic: both lines and scaling are given, and lines replaces scaling; leave one out"],
        ),
        ("model_stock", {"keep": 1}, ["model_stock: unknown parameter 'keep'; leave it out"]),
        ("dare", {"seed": 1.5, "drop": True}, ["dare: drop is True", "dare: seed is 1.5"]),
        ("magmax", {"scaling": float("nan")}, ["magmax: scaling is nan; give a number"]),
        ("average", {"weights": "linera"}, ["average: weights is 'linera'; give null"]),
        ("average", {"weights": [0, 0]}, ["average: weights is [0, 0]; give null"]),
        ("ties", {"lines": {"alhpa": 1}}, ["ties: lines is {'alhpa': 1}; give null (off), or {alpha"]),
    ],
)
def test_faults_say_where_what_and_what_to_do(technique, params, faults):
    with pytest.raises(MergeError) as caught:
        normalise(technique, params)
    assert len(caught.value.faults) == len(faults)
    assert all(found.startswith(fault) for found, fault in zip(caught.value.faults, faults, strict=True))


def test_requests_without_experts_or_with_wrong_ids():
    base, experts = world(2)
    for call in (merge, ema):
        with pytest.raises(MergeError, match="none is given"):
            call(base, [], "average")
        with pytest.raises(MergeError, match="one string per expert"):
            call(base, experts, "dare", ids=["a"])
    with pytest.raises(MergeError, match="give one of base, expert"):
        ema(base, experts, "average", start="bse")


@pytest.mark.parametrize(
    ("technique", "params", "use", "expected"),
    [
        ("average", {"weights": [2, 2.0], "weight": 0.3}, "merge", {"weights": None}),
        ("average", {"weights": "linear", "weight": 0.3}, "pair", {"weight": 0.3}),
        ("average", {}, "pair", {"weight": 0.5}),
        ("slerp", {"weight": 0.3}, "merge", {}),
        ("dare", {"drop": 0, "seed": 3, "scaling": 1}, "merge", {"drop": 0.0, "scaling": 1.0}),
        ("magmax", {"lines": {"beta": 0}}, "merge", {"lines": {"alpha": None, "beta": 0.0}}),
    ],
)
def test_what_cannot_change_a_result_is_left_out(technique, params, use, expected):
    assert normalise(technique, params, use=use) == expected


@pytest.mark.parametrize(
    ("technique", "params", "idle"),
    [
        ("ties", {"keep": 1.0}, {"exact_k": True}),
        ("dare", {"drop": 0.0}, {"seed": 9}),
        ("dare_ties", {"drop": 1.0}, {"seed": 9}),
        ("della", {"drop": 0.4, "epsilon": 0.0}, {"scope": "tensor"}),
        ("della", {"drop": 1.0, "epsilon": 0.0}, {"seed": 9, "scope": "tensor"}),
        ("consensus", {"min_agree": 0}, {"mask_scale": 3.0}),
        ("magmax", {"lines": {"alpha": 0.3, "beta": 0.0}}, {"lines": {"alpha": 0.3, "beta": 0.0, "curve": "sqrt"}}),
    ],
)
def test_parameters_that_normalise_away_change_no_bit(technique, params, idle):
    base, experts = world(3)
    assert normalise(technique, params) == normalise(technique, {**params, **idle})
    assert same(merge(base, experts, technique, **params), merge(base, experts, technique, **{**params, **idle}))


@pytest.mark.parametrize("technique", list(TECHNIQUES))
@pytest.mark.parametrize("use", ["merge", "pair"])
def test_normal_forms_survive_json(technique, use):
    normal = normalise(technique, {}, use=use)
    assert json.loads(json.dumps(normal, sort_keys=True)) == normal
    assert list(normal) == sorted(normal)


def test_complex_and_tiny_floats_are_refused():
    import torch

    base = {"c": torch.zeros(2, dtype=torch.complex64), "f": torch.zeros(2).to(torch.float8_e4m3fn)}
    with pytest.raises(MergeError) as caught:
        pair(base, base, base, "average")
    assert len(caught.value.faults) == 2
