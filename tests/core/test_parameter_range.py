"""Ranges of parameters: values that are tried can be written by hand, and lie within; bounds are noticed."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from time_ray.core.parameter_range import Range, is_range, read_range

BOUNDS = st.floats(1e-6, 1e6, allow_nan=False)


@given(one=BOUNDS, other=BOUNDS, share=st.floats(0, 1))
def test_what_is_tried_lies_within_and_is_short(one: float, other: float, share: float) -> None:
    assume(one != other)
    found = Range(low=min(one, other), high=max(one, other))
    tried = found.rounded(found.low + share * (found.high - found.low))
    assert found.low <= tried <= found.high
    assert tried in (found.low, found.high) or float(f"{tried:.4g}") == tried


def test_bounds_are_noticed_on_the_scale_of_the_range() -> None:
    linear, log = Range(low=0, high=1), Range(low=0.01, high=1, log=True)
    assert [linear.bound_at(value) for value in (0.0, 0.02, 0.05, 0.99)] == ["lower", "lower", None, "upper"]
    assert [log.bound_at(value) for value in (0.01, 0.02, 0.5, 1.0)] == ["lower", None, None, "upper"]


def test_whole_numbers_stay_whole() -> None:
    tried = Range(low=1, high=9, whole=True).rounded(4.0)
    assert (tried, type(tried)) == (4, int)


@pytest.mark.parametrize("value", [0.5, {"alpha": 1}, {"*": 0.5}, None, [0.1, 0.9]])
def test_other_values_are_no_ranges(value: object) -> None:
    assert not is_range(value)


FAULTS: list[tuple[dict[str, object], str]] = [
    ({"from": 0.9, "to": 0.1}, "keep: from 0.9 and to 0.1 are the wrong way round; give a lower and a higher bound"),
    ({"from": 0.5, "to": 0.5}, "keep: from 0.5 and to 0.5 are the same"),
    ({"from": 0.5}, "keep: a range is {from: NUMBER, to: NUMBER}, and to is None"),
    ({"from": "a", "to": 1}, "keep: a range is {from: NUMBER, to: NUMBER}, and from is 'a'"),
    ({"from": 0, "to": 1, "log": True}, "keep: log needs bounds above 0, and from is 0"),
    ({"from": 0, "to": 1, "log": 2}, "keep: log is 2; give true or false"),
    ({"from": 0, "to": 1, "lgo": True}, "keep: a range has no key 'lgo'; did you mean 'log'?; it has from, to and log"),
]


@pytest.mark.parametrize(("value", "expected"), FAULTS)
def test_what_is_no_range_is_said_with_its_parameter(value: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=r"^keep: ") as error:
        read_range("keep", value)
    assert str(error.value).startswith(expected)
