"""Names that people chose are names in MLflow: legal there by MLflow's own word, and no two are one."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric, _validate_param

from time_ray.tracking.names import LENGTH, metric_key, within

ODD = "()&+@#%?*'\"\\|<>[]{}!$,;=^`~\t\n\0éßΩ漢🙂\ud800 /.-_:"
NAMES = st.text(st.sampled_from(string.printable + ODD) | st.characters(), max_size=2 * LENGTH)


def accepted(key: str) -> bool:
    _validate_metric(key, 1.0, 0, 0)
    return len(key) <= LENGTH


@given(NAMES, st.sampled_from(["", "accuracy"]))
@example("", "accuracy")
@example("..", "accuracy")
@example("../../x", "")
@example("/", "")
@example("a//b/./c/", "accuracy")
@example("a\n", "accuracy")
@example("x" * 300, "accuracy")
def test_every_name_makes_a_legal_key(name: str, group: str) -> None:
    assert accepted(metric_key(name, group))


@pytest.mark.parametrize("letter", string.printable)
def test_every_printable_letter_alone_and_inside(letter: str) -> None:
    for name in (letter, f"a{letter}b", f"{letter}{letter}", f"a/{letter}"):
        for group in ("", "accuracy"):
            assert accepted(metric_key(name, group))


@given(NAMES, NAMES)
@example("cars (1999)", "cars [1999]")
@example("x" * 300, "x" * 301)
def test_two_names_are_two_keys(one: str, other: str) -> None:
    """Also where one is the key that the other has become."""
    names = {one, other, metric_key(one), metric_key(other), metric_key(one, "accuracy").removeprefix("accuracy/")}
    assert len({metric_key(name, "accuracy") for name in names}) == len(names)
    assert len({metric_key(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["GM", "Top 1", "caltech-101", "sub/set", "v1.2_b:c", "größe"])
def test_legal_names_stay(name: str) -> None:
    assert metric_key(name) == name
    assert metric_key(name, "accuracy") == f"accuracy/{name}"


def test_what_is_changed_can_still_be_read() -> None:
    assert metric_key("cars (1999)", "accuracy").startswith("accuracy/cars _1999_.")


def test_a_metric_is_no_dataset() -> None:
    assert metric_key("accuracy/cars") != metric_key("cars", "accuracy")


@given(NAMES, st.integers(10, 6000))
def test_values_fit(text: str, length: int) -> None:
    value = within(text, length)
    _validate_param("technique", value)
    assert len(value) <= length
    assert "\0" not in value
    value.encode()
