"""Keys name values: the same in every process and for ever, different for different values."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.keys import KEY_LENGTH, key_of, named

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_a_key_does_not_depend_on_the_process(hash_seed: str) -> None:
    value = "('recipe', {'b': 1, 'a': [0.1, None, True]}, 'θ')"
    program = f"from time_ray.core.keys import key_of; print(key_of(*{value}))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == key_of("recipe", {"a": [0.1, None, True], "b": 1}, "θ")


@pytest.mark.parametrize("nameless", [print, lambda: 0, {1, 2}, object(), b"bytes", 1j, range(3)])
def test_what_has_no_stable_name_is_refused(nameless: object) -> None:
    with pytest.raises(TypeError, match="no stable name"):
        key_of("fine", [{"deep": nameless}])


@given(PLAIN)
def test_a_key_is_made_of_hex_digits(value: object) -> None:
    key = key_of(value)
    assert len(key) == KEY_LENGTH
    int(key, 16)


@given(st.dictionaries(st.text(max_size=4), st.integers(), max_size=5))
def test_the_order_of_a_mapping_does_not_count(mapping: dict[str, int]) -> None:
    assert key_of(mapping) == key_of(dict(reversed(mapping.items())))


@given(st.lists(PLAIN, max_size=3), st.lists(PLAIN, max_size=3))
def test_different_values_have_different_keys(one: list[object], other: list[object]) -> None:
    assert (key_of(*one) == key_of(*other)) == (_typed(one) == _typed(other))


def _typed(value: object) -> object:
    """Equality as a key sees it: 1, 1.0 and True differ, 0.0 and -0.0 too, the order of a mapping does not count."""
    if isinstance(value, list):
        return ["list", *map(_typed, value)]
    if isinstance(value, dict):
        return ["dict", *sorted((k, repr(_typed(v))) for k, v in value.items())]
    return (type(value).__name__, value.hex() if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), ("ab",)),
        (("a\x1fsb",), ("a", "b")),
        (("a\x1fs1:b",), ("a", "b")),
        (([1, 2], 3), ([1], 2, 3)),
        ((1,), (1.0,)),
        ((1,), (True,)),
        (("1",), (1,)),
        ((None,), ("None",)),
        (([],), ({},)),
        (({"a": 1, "b": 2},), ({"a": 2, "b": 1},)),
        ((["a,s1:b"],), (["a", "b"],)),
    ],
)
def test_nothing_can_be_made_to_look_like_something_else(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    assert key_of(*one) != key_of(*other)


def test_a_tuple_and_a_list_are_the_same_value() -> None:
    assert key_of((1, ("a",))) == key_of([1, ["a"]])


@given(PLAIN, PLAIN)
def test_a_value_by_its_name_has_the_keys_of_the_value(one: object, other: object) -> None:
    assert key_of(named(one), [named(other)]) == key_of(one, [other])
