"""Content keys: a stable name for a value, the same in every process, on every machine, for ever."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

KEY_LENGTH = 32  # hex digits: 128 bits


class Named(NamedTuple):
    """A value that goes into many keys: its name is made once, and its keys are those of the value itself."""

    name: str

    def __str__(self) -> str:
        return self.name


def named(value: object) -> Named:
    """The value by its name. Raises TypeError as `key_of` does."""
    return Named(_name(value))


def key_of(*parts: object) -> str:
    """The key of a sequence of plain values; equal values have equal keys, whatever their dict order.

    Raises TypeError for anything that has no stable name (a function, a set, an object).
    """
    text = "\x1f".join([_name(part) for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _name(value: object) -> str:
    # str before the others: nearly every part of a recipe is a key already
    if isinstance(value, str):
        return f"s{len(value)}:{value}"
    if value is None or isinstance(value, (bool, Named)):
        return str(value)
    if isinstance(value, int):
        return f"i{value}"
    if isinstance(value, float):
        return f"f{value.hex()}"  # hex is exact; a printed float is not
    if isinstance(value, (tuple, list)):
        return "[" + ",".join([_name(v) for v in value]) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join([f"{_name(k)}={_name(value[k])}" for k in sorted(value)]) + "}"
    msg = f"a {type(value).__name__} has no stable name and cannot be part of a key"
    raise TypeError(msg)
