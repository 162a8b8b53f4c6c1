"""The one table behind TIME's init and deploy axes: what single model do the experts so far make?

Each strategy is a pure function of the history and returns a recipe, never tensors
(TIME, section 3, https://arxiv.org/abs/2412.06712).
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from time_ray.core.recipe import Base, Experts, Merged, Recipe, Running, Technique
from time_ray.core.section import Section

Name = Literal["zs", "ft", "ema", "all"]


class Strategy(Section):
    """One value on the init or deploy axis; `weight` and `start` belong to ema alone."""

    name: Name
    weight: Annotated[float, Field(ge=0, le=1, description="the newest expert's share in the running merge")] = 0.5
    start: Annotated[
        Literal["base", "expert"],
        Field(description="base: the running merge begins with the base; expert: with the first expert"),
    ] = "base"

    @model_validator(mode="after")
    def _only_ema_has_settings(self) -> Self:
        if self.name != "ema" and self.model_fields_set - {"name"}:
            msg = (
                f"{' and '.join(sorted(self.model_fields_set - {'name'}))} can be set for ema only, not for {self.name}"
            )
            raise ValueError(msg)
        return self

    @property
    def label(self) -> str:
        """The name, with what was set."""
        changed = {k: v for k, v in (("weight", self.weight), ("start", self.start)) if v != _DEFAULTS[k]}
        return self.name + ("(" + ",".join(f"{k}={v}" for k, v in changed.items()) + ")" if changed else "")

    @property
    def merges(self) -> bool:
        """Whether the strategy depends on the merge technique."""
        return self.name in ("ema", "all")

    def weights(self, base: Base, experts: Experts | None, technique: Technique) -> Recipe:
        """The model that the experts so far make; the base before the first of them."""
        return base if experts is None else STRATEGIES[self.name](self, base, experts, technique)


_DEFAULTS = {"weight": 0.5, "start": "base"}


def _zs(_: Strategy, base: Base, __: Experts, ___: Technique) -> Recipe:
    return base


def _ft(_: Strategy, __: Base, experts: Experts, ___: Technique) -> Recipe:
    return experts.newest


def _ema(strategy: Strategy, base: Base, experts: Experts, technique: Technique) -> Recipe:
    weight = strategy.weight if technique.weighted else None
    name = (technique.pair_key, weight, strategy.start)
    if name not in experts.running:
        experts.running[name] = _ema_step(strategy, base, experts, technique, weight)
    return experts.running[name]


def _ema_step(strategy: Strategy, base: Base, experts: Experts, technique: Technique, weight: float | None) -> Recipe:
    first = experts.previous is None
    if weight == 1 or (first and strategy.start == "expert"):
        return experts.newest
    older = base if experts.previous is None else _ema(strategy, base, experts.previous, technique)
    return older if weight == 0 else Running(technique, base, older, experts.newest, weight)


def _all(_: Strategy, base: Base, experts: Experts, technique: Technique) -> Recipe:
    if experts.length == 1 and technique.identity_of_one:
        return experts.newest
    return Merged(technique, base, experts)


STRATEGIES: dict[str, Callable[[Strategy, Base, Experts, Technique], Recipe]] = {
    "zs": _zs,
    "ft": _ft,
    "ema": _ema,
    "all": _all,
}
