"""Parameters of techniques: what each may be, its default, and one canonical form of its value."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from time_ray.merging.errors import MergeError
from time_ray.merging.lines import CURVES, TAILS, has_own_alpha

FORWARD = ("linear", "sqrt", "quadratic", "cubic", "fifth", "tenth", "exp", "log")
SCHEDULES = (*FORWARD, *(f"reverse_{name}" for name in FORWARD))


class Unfit(ValueError):  # noqa: N818 - a signal within this file, never seen outside
    """A value that its parameter does not allow."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a technique; the functions of this file make the usual ones."""

    default: Any
    allowed: str
    """The values that it allows, in words."""
    canonical: Callable[[Any], Any]
    """The one form of a value that JSON can hold; ValueError for what is not allowed."""
    edges: Sequence[Any] = ()
    """Values at the edges of what it allows, the least first: techniques are tested there."""

    def read(self, name: str, value: Any) -> Any:
        """The value in canonical form; MergeError says what is allowed."""
        try:
            return self.canonical(value)
        except (ValueError, OverflowError):
            raise MergeError(f"{name} is {value!r}; give {self.allowed}") from None


def is_number(value: object) -> bool:
    """Whether a value is a finite number (a truth value is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(default: float | None, low: float = -math.inf, high: float = math.inf, *, null: str = "") -> Parameter:
    """A finite number from low to high; `null` says what null means where it is allowed."""

    def canonical(value: Any) -> float | None:
        if value is None and null:
            return None
        if not is_number(value) or not low <= value <= high:
            raise Unfit
        return float(value)

    bounds = "a number" if math.isinf(low) else f"a number of at least {low:g}"
    allowed = f"a number from {low:g} to {high:g}" if math.isfinite(high) else bounds
    edges = [float(edge) for edge in (low, high) if math.isfinite(edge)]
    return Parameter(default, f"{allowed}, or null ({null})" if null else allowed, canonical, edges)


def by_layer(parameter: Parameter) -> Parameter:
    """The same for all tensors, or a mapping from patterns of names to values: the first that matches counts.

    A mapping has the pattern `*`, so that every tensor has a value. Its canonical form is a list of pairs, as JSON may
    lose the order of a mapping.
    """

    def canonical(value: Any) -> Any:
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        if not are_pairs(pairs):
            return parameter.canonical(value)
        if not any(pattern == "*" for pattern, _ in pairs):
            raise Unfit
        return [[pattern, parameter.canonical(one)] for pattern, one in pairs]

    allowed = f"{parameter.allowed}, or {{PATTERN: such a value, ..., '*': the value of all other tensors}}"
    return replace(parameter, allowed=allowed, canonical=canonical)


def are_pairs(value: object) -> bool:
    """Whether a value has a part for each pattern of names."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    )


def of_layer(pairs: Iterable[Sequence[Any]], name: str) -> Any:
    """The value of the first pattern that matches a tensor's name."""
    return next(value for pattern, value in pairs if fnmatchcase(name, pattern))


def fraction(default: float | None, *, null: str = "") -> Parameter:
    """A number from 0 to 1."""
    return number(default, 0, 1, null=null)


def whole(default: int | None, low: float = -math.inf, *, null: str = "") -> Parameter:
    """A whole number of at least `low`; `null` says what null means where it is allowed."""

    def canonical(value: Any) -> int | None:
        if value is None and null:
            return None
        if not is_number(value) or value != int(value) or value < low:
            raise Unfit
        return int(value)

    allowed = "a whole number" if math.isinf(low) else f"a whole number of at least {low:g}"
    edges = [int(low)] if math.isfinite(low) else []
    return Parameter(default, f"{allowed}, or null ({null})" if null else allowed, canonical, edges)


def choice(default: str, *options: str) -> Parameter:
    """One of some words."""

    def canonical(value: Any) -> str:
        if value not in options:
            raise Unfit
        return str(value)

    return Parameter(default, "one of " + ", ".join(options), canonical, options)


def flag(*, default: bool) -> Parameter:
    """True or false."""

    def canonical(value: Any) -> bool:
        if not isinstance(value, bool):
            raise Unfit
        return value

    return Parameter(default, "true or false", canonical, (False, True))


def weights() -> Parameter:
    """Null, one share per expert (made to sum to 1), or the name of a schedule; equal shares are null."""

    def canonical(value: Any) -> str | list[float] | None:
        if value is None or (isinstance(value, str) and value in SCHEDULES):
            return value
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise Unfit
        if not all(is_number(share) and share >= 0 for share in value) or not sum(value) > 0:
            raise Unfit
        return None if len(set(value)) == 1 else [float(share) for share in value]

    allowed = "null (equal shares), a list of numbers of at least 0 (oldest first, not all 0), or one of "
    return Parameter(None, allowed + ", ".join(SCHEDULES), canonical, SCHEDULES)


def lines() -> Parameter:
    """Null, or the settings of LiNeS."""
    fields = {"alpha": number(None, null="from the norms"), "beta": number(0.5), "curve": choice("linear", *CURVES)}
    fields |= {"tail": choice("last", *TAILS)}

    def canonical(value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping) or set(value) - set(fields):
            raise Unfit
        settings = {name: field.canonical(value.get(name, field.default)) for name, field in fields.items()}
        return settings if settings["beta"] else {"alpha": settings["alpha"], "beta": 0.0}

    allowed = (
        "null (off), or {alpha: a number or null, beta: a number, curve: "
        + "|".join(CURVES)
        + ", tail: "
        + "|".join(TAILS)
        + "}"
    )
    return Parameter(None, allowed, canonical, [{"alpha": 0.0, "beta": 0.0}])


def nearest(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the nearest known one, or all of them."""
    options = {one.lower(): one for one in known}
    close = difflib.get_close_matches(word.lower(), options, n=1)
    if close:
        return f"did you mean '{options[close[0]]}'?"
    return "give one of " + ", ".join(options.values()) if options else "leave it out"


def fill(where: str, table: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every parameter of the table in canonical form, defaults filled in; MergeError lists every fault."""
    faults = [f"{where}: unknown parameter '{name}'; {nearest(name, table)}" for name in given if name not in table]
    filled: dict[str, Any] = {}
    for name, parameter in table.items():
        try:
            filled[name] = parameter.read(name, given.get(name, parameter.default))
        except MergeError as error:
            faults += [f"{where}: {fault}" for fault in error.faults]
    if filled.get("lines") and given.get("scaling") is not None:
        faults.append(f"{where}: both lines and scaling are given, and lines replaces scaling; leave one out")
    if filled.get("keep_norm") and has_own_alpha(filled):
        faults.append(f"{where}: keep_norm sets the norm that an alpha of null is found from; give lines an alpha")
    MergeError.unless_none(faults)
    return filled
