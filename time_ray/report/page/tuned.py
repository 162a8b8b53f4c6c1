"""What searches for parameters found, as a table: where, defaults, the best, and what these gain."""

from collections.abc import Sequence
from dataclasses import dataclass

from time_ray.analysis.tuning_gain import Gain
from time_ray.analysis.tuning_verdict import SURE, params_text, tried_text, where_text
from time_ray.core.metrics import METRICS


@dataclass(frozen=True)
class TunedRow:
    """One search, in words."""

    name: str
    defaults: str
    found: str  # with the bounds that it lies at
    tried: str
    gain: str
    interval: str


@dataclass(frozen=True)
class Tuned:
    """All searches that are over."""

    caption: str
    rows: Sequence[TunedRow]


def tuned(gains: Sequence[Gain]) -> Tuned | None:
    """The table; None where nothing was searched."""
    if not gains:
        return None
    caption = (
        f"Gain of the best parameters over the defaults, {where_text(gains[0])}, with {SURE} % intervals over images"
    )
    return Tuned(caption, [_row(gain) for gain in gains])


def _row(gain: Gain) -> TunedRow:
    at_bounds = "".join(f"; {name} lies at the {bound} bound of its range" for name, bound in gain.at_bounds.items())
    return TunedRow(
        name=gain.name,
        defaults=params_text(gain.defaults),
        found=f"{params_text(gain.params)}{at_bounds}",
        tried=tried_text(gain),
        gain=f"{METRICS[gain.by].title} {gain.mean:+.2f}",
        interval=f"{gain.low:+.2f} … {gain.high:+.2f}",
    )
