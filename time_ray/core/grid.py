"""The grid: its cells, and the walk of one cell through its tasks as recipes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import (
    Base,
    Experts,
    Moments,
    Recipe,
    ResolvedTechnique,
    TaskTraining,
    Trained,
    moments_of,
    patched,
    reestimated,
)
from time_ray.core.scoring import Scoring
from time_ray.core.strategies import Strategy, made_by

MULTITASK = ("(multitask)", "–", "–")  # where a cell would name its init, deploy and technique
EVALUATION_VERSION = 2  # bump when the same weights would get other scores


class Link(NamedTuple):
    """One task of a trajectory: the weights training starts from, the expert it makes, and all experts so far."""

    start: Recipe
    expert: Trained
    experts: Experts


class Step(NamedTuple):
    """One task of a cell, as recipes: init, train, deploy."""

    training: TaskTraining
    start: Recipe
    expert: Trained
    deployed: Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What all cells of one (model, budget, seed) share: the base and one training recipe a task."""

    model: ModelSpec
    budget: str
    seed: int
    base: Base
    trainings: tuple[TaskTraining, ...]
    adaptation: tuple[str, ...]  # dataset names that count for KA
    evaluation: tuple[str, ...]  # dataset names that count for ZS
    evaluation_data_key: str  # the bytes of every dataset that is scored
    scoring: Scoring
    batches: int | None = None  # that BatchNorm statistics of deployed merges are estimated on
    evaluation_key: str = field(init=False)
    key: str = field(init=False)
    chains: dict[tuple[Strategy, str], tuple[Link, ...]] = field(init=False, repr=False, default_factory=dict)
    links: dict[tuple[str, str], Link] = field(init=False, repr=False, default_factory=dict)  # by history and start

    def __post_init__(self) -> None:
        datasets = (self.adaptation, self.evaluation, self.evaluation_data_key)
        subset = None if self.scoring.subset is None else (self.scoring.subset, self.seed)
        scored: tuple[object, ...] = (EVALUATION_VERSION, *datasets, subset, self.scoring.templates)
        scored += () if self.scoring.precision in {"fp32", "auto"} else (self.scoring.precision,)
        object.__setattr__(self, "evaluation_key", key_of("evaluation", *scored))
        parts: tuple[object, ...] = (self.base.key, [t.key for t in self.trainings], self.evaluation_key)
        parts += () if self.batches is None else (self.batches,)
        object.__setattr__(self, "key", key_of("setting", *parts))

    def chain(self, init: Strategy, technique: ResolvedTechnique) -> tuple[Link, ...]:
        """The trajectory of an init strategy; trajectories share their links as far as they are the same."""
        name = (init, technique.entry_key)
        if name not in self.chains:
            self.chains[name] = tuple(self._links(init, technique))
        return self.chains[name]

    def _links(self, init: Strategy, technique: ResolvedTechnique) -> Iterator[Link]:
        experts: Experts | None = None
        for training in self.trainings:
            start = self.base if experts is None else made_by(init, self.base, experts, technique)
            link = self._link(experts, start, training)
            experts = link.experts
            yield link

    def _link(self, experts: Experts | None, start: Recipe, training: TaskTraining) -> Link:
        name = (experts.key if experts else "", start.key)
        if name not in self.links:
            expert = Trained(start, training)
            self.links[name] = Link(start, expert, Experts.add(experts, expert))
        return self.links[name]

    def scores_key(self, deployed: Recipe) -> str:
        """The name under which the scores of these weights are kept."""
        return f"{deployed.key}-{self.evaluation_key}"


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One point of the grid."""

    init: Strategy
    deploy: Strategy
    technique: ResolvedTechnique
    setting: Setting
    multitask: bool = False  # trained on all tasks at once, for comparison: no point of the grid
    key: str = field(init=False)

    def __post_init__(self) -> None:
        parts = (_identity(self.init), _identity(self.deploy), self.technique.entry_key, self.setting.key)
        object.__setattr__(self, "key", key_of("cell", *parts))

    @property
    def axes(self) -> dict[str, str]:
        """The cell's place on every axis, for people."""
        init, deploy, technique = self.init.label, self.deploy.label, self.technique.label
        if self.multitask:
            init, deploy, technique = MULTITASK
        return {
            "init": init,
            "deploy": deploy,
            "technique": technique,
            "model": self.setting.model.label,
            "budget": self.setting.budget,
            "seed": str(self.setting.seed),
        }

    @property
    def place(self) -> tuple[str, ...]:
        """Its place on every axis but the seed: what cells share that are compared or averaged over seeds."""
        return tuple(value for axis, value in self.axes.items() if axis != "seed")

    @property
    def name(self) -> str:
        """The cell in one line, for people."""
        axes = self.axes
        rest = f"{axes['model']} {axes['budget']} seed {axes['seed']}"
        if self.multitask:
            return f"{axes['init']} · {rest}"
        return f"{axes['init']}/{axes['deploy']} {axes['technique']} · {rest}"

    @property
    def trajectory(self) -> str:
        """The key of the chain of experts this cell shares with others: those whose inits come to the same experts."""
        return key_of("trajectory", self.setting.key, self.setting.chain(self.init, self.technique)[-1].experts.key)

    def walk(self) -> Iterator[Step]:
        """The cell's tasks in order, as recipes; nothing is computed."""
        technique, base = self.technique, self.setting.base
        for link in self.setting.chain(self.init, technique):
            served = patched(made_by(self.deploy, base, link.experts, technique), base, self.deploy.patch)
            yield Step(link.expert.training, link.start, link.expert, reestimated(served, self.setting.batches))

    def moments(self) -> dict[str, Moments]:
        """The second moments that its merges need, by the expert's key."""
        if not self.technique.needs_moments:
            return {}
        merges = (recipe for step in self.walk() for recipe in (step.start, step.deployed))
        return {one.expert.key: one for recipe in merges for one in moments_of(recipe)}

    def at_lengths(self, final: Recipe) -> dict[float, Recipe]:
        """What the cell serves last at the other lengths that are asked for."""
        return {length: self.recipe_at(final, length) for length in self.setting.scoring.lengths}

    def recipe_at(self, final: Recipe, length: float) -> Recipe:
        """What the cell serves last, at that length."""
        return reestimated(patched(final, self.setting.base, length), self.setting.batches)


def last(cell: Cell) -> Recipe:
    """What a cell serves after the last task."""
    *_, step = cell.walk()
    return step.deployed


def _identity(strategy: Strategy) -> str:
    """The label; of a strategy from outside also which version of it: another one may make other models."""
    return strategy.label if strategy.version is None else f"{strategy.label} {strategy.version}"


def grid(
    inits: Sequence[Strategy],
    deploys: Sequence[Strategy],
    techniques: Sequence[ResolvedTechnique],
    settings: Sequence[Setting],
) -> tuple[Cell, ...]:
    """Every cell, in reading order of the axes."""
    return tuple(Cell(i, d, k, s) for s in settings for i in inits for d in deploys for k in techniques)


def without_lengths(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The same cells, of which no other lengths are asked for."""
    settings = {cell.setting.key: cell.setting for cell in cells if cell.setting.scoring.lengths}
    short = {
        key: replace(setting, scoring=setting.scoring.model_copy(update={"lengths": ()}))
        for key, setting in settings.items()
    }
    return tuple(
        replace(cell, setting=short[cell.setting.key]) if cell.setting.key in short else cell for cell in cells
    )
