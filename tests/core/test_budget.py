"""Budgets as people write them."""

import pytest

from time_ray.core.budget import Budget


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
    assert Budget.parse(text).steps(batch_size=64) == steps


def test_a_label_is_parsed_to_the_same_budget() -> None:
    budget = Budget.parse("1920   samples")
    assert Budget.parse(budget.label) == budget


@pytest.mark.parametrize(
    "text", ["", "30", "0 steps", "-3 steps", "1.5 steps", "30 epochs", "thirty steps", "30 steps!"]
)
def test_anything_else_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="is no budget; write a positive amount"):
        Budget.parse(text)
