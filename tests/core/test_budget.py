"""Budgets as people write them, and what they come to."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.budget import Budget, Cost


def cost() -> Cost:
    return Cost(100.0)


def no_cost() -> Cost:
    raise AssertionError("nothing is measured where steps or samples are given")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("30 steps", 30),
        ("1920 samples", 30),
        ("1 samples", 1),
        ("  7steps ", 7),
        ("100 samples", 1),
        ("127 samples", 1),
    ],
)
def test_a_budget_becomes_steps_of_one_task(text: str, steps: int) -> None:
    assert Budget.parse(text).steps(64, 5, no_cost) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [("1.8e9 GFLOPs", 3_600_000), ("1x", 3_600_000), ("0.5x", 1_800_000), ("1300 GFLOPs", 3), ("450.0GFLOPs", 1)],
)
def test_flops_are_spread_over_the_tasks(text: str, steps: int) -> None:
    assert Budget.parse(text).steps(64, 5, cost) == steps


def test_memory_counts() -> None:
    assert Budget.parse("2000 GFLOPs").steps(64, 2, lambda: Cost(100.0, 0.5)) == 20


def test_less_than_a_step_is_refused_with_the_least_there_is() -> None:
    with pytest.raises(ValueError, match=r"'200 GFLOPs' is less than a step for each of 5 tasks; .* from about 500 GF"):
        Budget.parse("200 GFLOPs").steps(64, 5, cost)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1920   samples", "1920 samples"),
        ("0.50x", "0.5x"),
        ("2 x", "2x"),
        ("20x", "20x"),
        ("1e-5x", "0.00001x"),
        ("0.25 GFLOPs", "0.25 GFLOPs"),
        ("2.5e-1 GFLOPs", "0.25 GFLOPs"),
        ("9999.5 GFLOPs", "9999.5 GFLOPs"),
        ("123456 GFLOPs", "1.23456e5 GFLOPs"),
        ("1.80e9GFLOPs", "1.8e9 GFLOPs"),
        ("1800000000 GFLOPs", "1.8e9 GFLOPs"),
    ],
)
def test_a_label_is_parsed_to_the_same_budget(text: str, label: str) -> None:
    budget = Budget.parse(text)
    assert budget.label == label
    assert Budget.parse(budget.label) == budget


@pytest.mark.parametrize(
    "text",
    ["", "30", "0 steps", "-3 steps", "1.5 steps", "30 epochs", "thirty steps", "30 steps!", "0x", "1e999 GFLOPs", "x"],
)
def test_anything_else_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget; write a positive amount"):
        Budget.parse(text)


@given(st.floats(min_value=1e-12, max_value=1e15), st.sampled_from(["x", "GFLOPs"]))
def test_every_budget_survives_being_written(amount: float, unit: Literal["x", "GFLOPs"]) -> None:
    budget = Budget(amount=amount, unit=unit)
    assert Budget.parse(budget.label) == budget
