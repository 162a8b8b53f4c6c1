"""The one table behind TIME's init and deploy axes: what single model do the experts so far make?

A strategy is one object that owns all of itself: its name, its parameters, how it is written and shown, and what it
makes of the experts, as a recipe and never as tensors (TIME, section 3, https://arxiv.org/abs/2412.06712).
With θ_0 the base, θ_t the expert of task t and m_t the model that a strategy makes after task t.
"""

import inspect
import math
from abc import abstractmethod
from functools import cached_property
from itertools import dropwhile
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from time_ray.core.errors import UserError, unknown
from time_ray.core.recipe import (
    MERGES,
    Base,
    Experts,
    OuterStep,
    Recipe,
    ResolvedTechnique,
    Running,
    Trained,
    merge_of,
)
from time_ray.core.section import Section


class Strategy(Section):
    """One value on the init or deploy axis. Its fields are its parameters; each has a default and a description."""

    name: ClassVar[str]  # what an experiment calls it
    version: ClassVar[int | str | None] = None  # of a plugin: its own, or the digest of its source
    patch: Annotated[
        float, Field(ge=0, le=100, description="what is served is the base and so much of the way from it to the model")
    ] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _not_of_another(cls, values: dict[str, Any]) -> dict[str, Any]:
        foreign: dict[tuple[str, ...], list[str]] = {}
        for name in values.keys() - cls.model_fields.keys():
            foreign.setdefault(taken_by(name), []).append(name)
        faults = [
            f"{' and '.join(sorted(names))} can be set for {' and '.join(owners)} only, not for {cls.name}"
            for owners, names in sorted(foreign.items())
            if owners
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return values

    @cached_property  # each cell asks for it several times
    def label(self) -> str:
        """The name, with what was set: for people, and for the keys of cells."""
        defaults = type(self).model_fields
        said = [f"{name}={value}" for name, value in self if value != defaults[name].default]
        return f"{self.name}({','.join(said)})" if said else self.name

    def written(self) -> object:
        """The strategy as an experiment file has it; `read` gives it back."""
        parameters = self.model_dump(mode="json", exclude={"patch"} if self.patch == 1 else None)
        return {"name": self.name, **parameters} if parameters else self.name

    @abstractmethod
    def recipe(self, base: Base, experts: Experts, technique: ResolvedTechnique, /) -> Recipe:
        """The model m_t that the experts so far make. It may depend on nothing but what is given here.

        Args:
            base: the pretrained weights θ_0, which all experts go back to.
            experts: those of tasks 1 to t, at least one; the first task starts from the base, whatever the strategy.
            technique: how this cell merges; for `merge_of` and `Running`.

        Returns:
            One of the recipes: equal ones wherever weights are known to be equal without computing, as what shares a
            recipe shares its training and its scores.

        """


class Zs(Strategy):
    """m_t = θ_0: the base, whatever was learned."""

    name = "zs"

    def recipe(self, base: Base, _experts: Experts, _technique: ResolvedTechnique, /) -> Recipe:
        """See Strategy."""
        return base


class Ft(Strategy):
    """m_t = θ_t: the newest expert."""

    name = "ft"

    def recipe(self, _base: Base, experts: Experts, _technique: ResolvedTechnique, /) -> Recipe:
        """See Strategy."""
        return experts.newest


class Ema(Strategy):
    """m_t = merge(m_{t-1}, θ_t): a running merge, in which the newest expert has a share of `weight`.

    m_0 is the base, or with `start: expert` m_1 is the first expert.
    """

    name = "ema"
    weight: Annotated[float, Field(ge=0, le=1, description="the newest expert's share in the running merge")] = 0.5
    start: Annotated[
        Literal["base", "expert"],
        Field(description="base: the running merge begins with the base; expert: with the first expert"),
    ] = "base"

    def recipe(self, base: Base, experts: Experts, technique: ResolvedTechnique, /) -> Recipe:
        """See Strategy. Kept with the history, so that each task goes on from the one before it."""
        weight = self.weight if technique.weighted else technique.share
        name = (technique.pair_key, weight, self.start)
        if name not in experts.running:
            experts.running[name] = self._step(base, experts, technique, weight)
        return experts.running[name]

    def _step(self, base: Base, experts: Experts, technique: ResolvedTechnique, weight: float | None) -> Recipe:
        first = experts.previous is None
        if weight == 1 or (first and self.start == "expert"):
            return experts.newest
        older = base if experts.previous is None else self.recipe(base, experts.previous, technique)
        return older if weight == 0 else Running(technique, base, older, experts.newest, weight)


class All(Strategy):
    """m_t = merge(θ_1, ..., θ_t): one merge of all experts."""

    name = "all"

    def recipe(self, base: Base, experts: Experts, technique: ResolvedTechnique, /) -> Recipe:
        """See Strategy."""
        return merge_of(technique, base, experts)


Growing = Literal["linear", "sqrt", "quadratic", "cubic", "fifth", "tenth", "exp", "log"]
Shrinking = Literal[
    "reverse_linear",
    "reverse_sqrt",
    "reverse_quadratic",
    "reverse_cubic",
    "reverse_fifth",
    "reverse_tenth",
    "reverse_exp",
    "reverse_log",
]
SCHEDULES = (*get_args(Growing), *get_args(Shrinking))
"""Names of weights that grow or shrink from expert to expert: those that techniques have."""


def _weights(value: object) -> object:
    if isinstance(value, str) and value not in SCHEDULES:
        raise ValueError(unknown("schedule", value, SCHEDULES))
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple)) or not all(_is_weight(one) for one in value):
        raise ValueError(f"{value!r} are no weights; give a number of at least 0 for each expert, or a schedule's name")
    return tuple(float(one) for one in value)


def _is_weight(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


class Window(Strategy):
    """m_t = merge(θ_{t-size+1}, ..., θ_t): one merge of the newest experts; older ones count no more.

    With `weights` the experts count as listed, oldest first, or by a schedule. A list that holds the differences of a
    learning rate's decay has its effect, after the fact (WSM, https://arxiv.org/abs/2507.17634).
    """

    name = "window"
    size: Annotated[int, Field(ge=1, description="how many of the newest experts are merged")] = 3
    weights: Annotated[
        Growing | Shrinking | tuple[float, ...] | None,
        BeforeValidator(_weights),
        Field(description="how the experts count: `size` numbers, oldest first, or a schedule; null: equally"),
    ] = None

    @model_validator(mode="after")
    def _one_for_each(self) -> "Window":
        if isinstance(self.weights, tuple) and len(self.weights) != self.size:
            raise ValueError(f"{len(self.weights)} weights for a window of size {self.size}; give one for each expert")
        if isinstance(self.weights, tuple) and not self.weights[-1]:
            raise ValueError("the last of the weights is 0, so the newest expert counts nothing; give it some weight")
        return self

    def recipe(self, base: Base, experts: Experts, technique: ResolvedTechnique, /) -> Recipe:
        """See Strategy. Of a history that is shorter than a list of weights, the newest experts have the last ones."""
        if self.weights is None or not technique.weighs_experts:
            return merge_of(technique, base, experts.last(self.size))
        count, weights = self._counted(self.weights, experts.length)
        return merge_of(technique.with_weights(weights), base, experts.last(count))

    def _counted(self, weights: str | tuple[float, ...], length: int) -> tuple[int, str | list[float] | None]:
        """How many of so many experts count, and their weights: None where they are equal."""
        if isinstance(weights, str):
            count = min(self.size, length)
            return count, None if count == 1 else weights
        counting = list(dropwhile(lambda weight: weight == 0, weights[-length:]))
        return len(counting), None if len(set(counting)) == 1 else counting


class Outer(Strategy):
    """m_t = merge(m_{t-1}, θ_t) + momentum: a running merge that also goes on the way it went before.

    Each task is a step of an outer optimiser: SNOO (https://arxiv.org/abs/2510.15830) where the technique is `average`,
    with m_0 = θ_0 and the pseudo-gradient m_{t-1} - θ_t. Without momentum it is `ema` with `rate` as its weight.
    """

    name = "outer"
    rate: Annotated[float, Field(ge=0, le=1, description="the newest expert's share before momentum is added")] = 0.5
    momentum: Annotated[float, Field(ge=0, lt=1, description="how much of the last step is made again")] = 0.5
    nesterov: Annotated[bool, Field(description="momentum counts the present step, too")] = True

    def recipe(self, base: Base, experts: Experts, technique: ResolvedTechnique, /) -> Recipe:
        """See Strategy. Kept with the history, so that each task goes on from the one before it."""
        weight = self.rate if technique.weighted else technique.share
        if self.momentum == 0 or weight == 0:
            return Ema(weight=self.rate).recipe(base, experts, technique)
        name = (technique.pair_key, weight, self.momentum, self.nesterov)
        if name not in experts.running:
            experts.running[name] = self._step(base, experts, technique, weight)
        return experts.running[name]

    def _step(self, base: Base, experts: Experts, technique: ResolvedTechnique, weight: float | None) -> Recipe:
        before = experts.previous
        older = self._after(base, before, technique)
        merge = Running(technique, base, older, experts.newest, weight)
        if self.nesterov:
            merge_before = older.merge if isinstance(older, OuterStep) else older
            return OuterStep(merge, merge_before, self.momentum, nesterov=True)
        if before is None:  # it has not gone anywhere yet
            return merge
        older_before = self._after(base, before.previous, technique)
        return OuterStep(merge, older_before, self.momentum, nesterov=False)

    def _after(self, base: Base, experts: Experts | None, technique: ResolvedTechnique) -> Recipe:
        return base if experts is None else self.recipe(base, experts, technique)


STRATEGIES: dict[str, type[Strategy]] = {kind.name: kind for kind in (Zs, Ft, Ema, All, Window, Outer)}

Kind = TypeVar("Kind", bound=type[Strategy])


def register(strategy: Kind) -> Kind:
    """An experiment may name the strategy from now on; a decorator of its class. Raises UserError if the name is taken.

    Workers read experiments, too: the module that registers must be imported there as well.
    """
    if strategy.name in STRATEGIES:
        raise UserError(f"strategy '{strategy.name}': the name is taken; give it another")
    STRATEGIES[strategy.name] = strategy
    return strategy


def read(value: object) -> Strategy:
    """The strategy that is written as `ema` or `{name: ema, weight: 0.3}`. Raises ValidationError with its faults."""
    if isinstance(value, Strategy):
        return value
    named = _Named.model_validate({"name": value} if isinstance(value, str) else value)
    return STRATEGIES[named.name].model_validate(named.model_extra)


def made_by(strategy: Strategy, base: Base, experts: Experts, technique: ResolvedTechnique) -> Recipe:
    """The strategy's recipe. Raises UserError where one from outside raises, or gives none."""
    if strategy.version is None:
        return strategy.recipe(base, experts, technique)
    where = f"{inspect.getsourcefile(type(strategy).recipe)}: strategy '{strategy.label}' after task {experts.length}"
    try:
        found: object = strategy.recipe(base, experts, technique)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where}: {text}; correct the strategy") from error
    if not isinstance(found, (Base, Trained, *MERGES)):
        raise UserError(f"{where}: gave {type(found).__name__}; return a recipe, as merge_of or experts.newest is")
    return found


def taken_by(parameter: str) -> tuple[str, ...]:
    """The strategies that have a parameter of this name."""
    return tuple(name for name, strategy in STRATEGIES.items() if parameter in strategy.model_fields)


def keys() -> tuple[str, ...]:
    """What a strategy may have where it is written as a mapping: a name, and the parameters of whichever it is."""
    return ("name", *dict.fromkeys(name for strategy in STRATEGIES.values() for name in strategy.model_fields))


def plain_name(text: str) -> str:
    """The name itself. Raises ValueError for one with parameters as tables show them, `ema(weight=0.3)`."""
    name, bracket, said = text.removesuffix(")").partition("(")
    if bracket:
        parameters = said.replace("=", ": ").replace(",", ", ")
        msg = f"'{text}' is how tables show it; write {{name: {name}, {parameters}}}, on a command line in quotes"
        raise ValueError(msg)
    return text


def _known(name: str) -> str:
    plain_name(name)
    if name not in STRATEGIES:
        raise ValueError(unknown("value", name, STRATEGIES))
    return name


class _Named(BaseModel):
    """What is written of any strategy; the rest are parameters."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Annotated[str, AfterValidator(_known)]
