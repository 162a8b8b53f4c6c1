"""The range of a technique's parameter that is searched, as an experiment has it: `{from: 0.05, to: 0.9}`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from time_ray.core.errors import nearest

KEYS = ("from", "to", "log")
_AT_A_BOUND = 0.02  # of the range
_DIGITS = 4  # of a value that is tried: so it can be written by hand


@dataclass(frozen=True, kw_only=True)
class Range:
    """All values from `low` to `high`; with `log`, equal ratios are equally far apart."""

    low: float
    high: float
    log: bool = False
    whole: bool = False  # whole numbers alone

    @property
    def label(self) -> str:
        """As tables show it."""
        return f"{self.low:g}…{self.high:g}{' log' if self.log else ''}"

    def rounded(self, value: float) -> float:
        """The value to be tried for this one."""
        return int(value) if self.whole else min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def at(self, bound: Literal["lower", "upper"]) -> float:
        """One of its bounds."""
        return self.low if bound == "lower" else self.high

    def bound_at(self, value: float) -> Literal["lower", "upper"] | None:
        """The bound that a value lies at: there may be better ones beyond it."""
        low, high, at = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        share = (at - low) / (high - low)
        return "lower" if share <= _AT_A_BOUND else "upper" if share >= 1 - _AT_A_BOUND else None


def is_range(value: object) -> bool:
    """Whether a parameter is to be searched."""
    return isinstance(value, Mapping) and not {"from", "to"}.isdisjoint(value)


def read_range(name: str, value: Mapping[str, Any]) -> Range:
    """The range that is written so. Raises ValueError, with the parameter's name, for what is none."""
    for key in value:
        if key not in KEYS:
            raise ValueError(f"{name}: a range has no key '{key}'{nearest(str(key), KEYS)}; it has from, to and log")
    low, high = (_bound(name, key, value.get(key)) for key in ("from", "to"))
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"{name}: log is {log!r}; give true or false")  # noqa: TRY004 what pydantic tells people
    if not low < high:
        what = "are the same" if low == high else "are the wrong way round"
        raise ValueError(f"{name}: from {low:g} and to {high:g} {what}; give a lower and a higher bound, or one value")
    if not math.isfinite(high - low):
        raise ValueError(f"{name}: from {low:g} to {high:g} is too far; give bounds that are nearer")
    if log and low <= 0:
        raise ValueError(f"{name}: log needs bounds above 0, and from is {low:g}")
    return Range(low=low, high=high, log=log)


def _bound(name: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: a range is {{from: NUMBER, to: NUMBER}}, and {key} is {value!r}")  # noqa: TRY004
    return value
