"""Tuning: parameters of a technique are searched where it only deploys; a candidate is merged and scored once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.core.parameter_range import Range
from time_ray.core.section import Section

VERSION = 1  # bump when the same settings would find other parameters

Params = Mapping[str, float]


class TuningSettings(Section):
    """How parameters are searched whose technique has ranges."""

    by: Annotated[
        Literal["gm", "ka", "zs"], Field(description="what is to be high; without held-out datasets there is only ka")
    ] = "gm"
    candidates: Annotated[
        int, Field(ge=1, description="how many are tried, for each init, deploy, model and budget")
    ] = 40
    at_once: Annotated[
        int, Field(ge=1, description="so many are suggested by the scores of all before; on Ray they run at once")
    ] = 4
    seed: Annotated[int, Field(ge=0, description="where chance suggests")] = 0


@dataclass(frozen=True)
class Candidate:
    """Parameters that were tried, and what they score on the half of the images that selects; None: they failed."""

    params: dict[str, float]
    value: float | None
    error: str = ""


def best_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """The one with the highest score, of equals the first; None if all have failed."""
    scored = [one for one in candidates if one.value is not None]
    return max(scored, key=lambda one: one.value or 0.0) if scored else None


@dataclass(frozen=True, eq=False)
class Tuning:
    """The search for a technique's parameters, for one init, deploy, model and budget.

    Attributes:
        technique: its name.
        label: the technique as it was written, with ranges.
        named: what people call it; empty: by the technique's name.
        fixed: parameters with one value.
        ranges: those that are searched.
        start: the defaults of these, which are the first candidate; None where a range is without its default.
        settings: how.
        cells: with the defaults of what is searched, a seed each.

    """

    technique: str
    label: str
    fixed: Mapping[str, object]
    ranges: Mapping[str, Range]
    start: Params | None
    settings: TuningSettings
    cells: tuple[Cell, ...]
    named: str = ""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        ranges = {name: [one.low, one.high, one.log, one.whole] for name, one in self.ranges.items()}
        cells = [cell.key for cell in self.cells]
        parts = (self.technique, self.cells[0].technique.key, ranges, self.start, self.settings.model_dump(), cells)
        object.__setattr__(self, "key", key_of("tuning", VERSION, *parts))

    @property
    def by(self) -> str:
        """The metric that is to be high."""
        has_no_gm = self.settings.by == "gm" and not self.cells[0].setting.evaluation
        return "ka" if has_no_gm else self.settings.by

    @property
    def searched(self) -> str:
        """The technique as people call it."""
        return self.named or self.technique

    @property
    def name(self) -> str:
        """It in one line, for people."""
        axes = self.cells[0].axes
        return f"{self.searched} for {axes['init']}/{axes['deploy']} · {axes['model']} {axes['budget']}"

    def rounded(self, suggested: Params) -> dict[str, float]:
        """The candidate that is tried for what was suggested."""
        return {name: self.ranges[name].rounded(value) for name, value in suggested.items()}
