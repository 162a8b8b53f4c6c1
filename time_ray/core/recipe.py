"""Weights are recipes: how a model came to be, named by content, before anything is computed.

Every recipe's key is computed once, at construction, from its own literals and its parts' keys.
Equal weights get equal keys wherever that is known without computing; compare recipes by key.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

from time_ray.core.keys import key_of
from time_ray.core.mixture import Mixture
from time_ray.core.stream import Task
from time_ray.core.training import Training

TRAINING_VERSION = 2  # bump when the same settings would train other weights
FLOAT16_VERSION = 2  # the same, of those in float16
STATISTICS_VERSION = 1  # bump when the same batches would give other statistics of BatchNorm
MOMENTS_VERSION = 1  # bump when the same training would leave other second moments


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedTechnique:
    """A merge technique with the parameters that decide its result, in canonical form.

    A merge of all experts and a step of a running merge depend on different parameters, so they have a key each.
    """

    name: str
    label: str  # for people: the name and what was set
    version: int | str
    params: Mapping[str, object]  # of a merge of all experts
    pair_params: Mapping[str, object]  # of a step of a running merge
    weighted: bool  # takes the newest expert's share in a running merge
    identity_of_one: bool  # merging one expert alone gives that expert, bit for bit
    weighs_experts: bool = False  # takes weights in a merge of many: a list, or the name of a schedule
    needs_moments: bool = False  # merges by the second moments of its experts, too
    needs_agreement: bool = False  # a merge of the base and an expert is the base
    share: float | None = None  # the newest expert's in a running merge, where it is fixed and not the strategy's
    written_as: str = ""  # the technique of the experiment, where that is this one by another name
    key: str = field(init=False)
    pair_key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("technique", self.name, self.version, self.params))
        object.__setattr__(self, "pair_key", key_of("pair", self.name, self.version, self.pair_params))

    @property
    def entry_key(self) -> str:
        """What the technique's axis is told apart by: two names of one technique are two entries, and one recipe."""
        return key_of("technique", self.written_as, self.key) if self.written_as else self.key

    def with_weights(self, weights: str | list[float] | None) -> "ResolvedTechnique":
        """The technique, which takes them, with these weights in merges of many."""
        return replace(self, params={**self.params, "weights": weights})


class GivenExpert(NamedTuple):
    """A file of fine-tuned weights, which are an expert as they are."""

    path: str
    digest: str  # of its bytes
    dataset: str = ""  # where other datasets of the same stream have a file with these bytes, too


@dataclass(frozen=True, slots=True, eq=False)
class TaskTraining:
    """All that one training depends on besides its start: the task, what may be replayed, and the settings.

    A given expert depends on its file alone: it is the same one in whatever order the tasks come. Only copies of one
    file depend on their datasets, too, as each of them counts in a merge.
    """

    task: Task
    earlier: tuple[Task, ...]  # tasks the buffer replays from; empty without replay
    config: Training
    mixture: Mixture
    steps: int
    seed: int
    data_key: str  # the bytes of every dataset it reads
    given: GivenExpert | None = None  # the expert, where nothing is trained
    key: str = field(init=False)

    def __post_init__(self) -> None:
        if self.given is not None:
            named = (self.given.dataset,) if self.given.dataset else ()
            object.__setattr__(self, "key", key_of("given", self.given.digest, *named))
            return
        parts = (
            TRAINING_VERSION,
            self.task.number,
            self.task.named,
            [task.named for task in self.earlier],
            self.config.identity,
            self.mixture.model_dump(),
            self.steps,
            self.seed,
            self.data_key,
            *((FLOAT16_VERSION,) if self.config.precision == "fp16" else ()),
        )
        object.__setattr__(self, "key", key_of("training", *parts))


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """The pretrained weights θ_0 of a model, and the preprocessing that they want where it is not the usual one."""

    model: str
    weights_digest: str
    preprocessing: Mapping[str, object] = field(default_factory=dict)  # what differs from the default
    key: str = field(init=False)

    def __post_init__(self) -> None:
        parts = (self.model, self.weights_digest, *([self.preprocessing] if self.preprocessing else []))
        object.__setattr__(self, "key", key_of("base", *parts))


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """An expert: the raw weights at the end of training on a task."""

    start: "Recipe"
    training: TaskTraining
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("trained", self.start.key, self.training.key))


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """AdamW's second moments at the end of an expert's training, by the names of its weights."""

    expert: Trained
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("moments", MOMENTS_VERSION, self.expert.key))


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    """The experts so far, oldest to newest, as a chain: a longer history is one link, not a longer list."""

    previous: "Experts | None"
    newest: Trained
    length: int
    key: str
    running: dict[tuple[object, ...], "Recipe"] = field(default_factory=dict, repr=False)  # running merges, once made
    recent: dict[int, "Recent"] = field(default_factory=dict, repr=False)  # the newest experts by number, once made

    @classmethod
    def add(cls, previous: "Experts | None", newest: Trained) -> "Experts":
        """The history with one more expert."""
        if previous is None:
            return cls(None, newest, 1, key_of("experts", newest.key))
        return cls(previous, newest, previous.length + 1, key_of("experts", previous.key, newest.key))

    def last(self, size: int) -> "Experts | Recent":
        """The newest `size` experts: this history itself, if it is no longer than that."""
        if size >= self.length:
            return self
        if size not in self.recent:
            self.recent[size] = Recent(tuple(islice(self._newest_first(), size))[::-1])
        return self.recent[size]

    def __iter__(self) -> Iterator[Trained]:
        """The experts, oldest first."""
        return reversed(list(self._newest_first()))

    def _newest_first(self) -> Iterator[Trained]:
        link: Experts | None = self
        while link is not None:
            yield link.newest
            link = link.previous


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """The newest experts of a longer history, without the first of it.

    It loses an expert with every one that it gains, so it continues no shorter history, and its key is made at once.
    """

    experts: tuple[Trained, ...]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("recent experts", [expert.key for expert in self.experts]))

    @property
    def previous(self) -> None:
        """The history that this one continues: none."""

    @property
    def newest(self) -> Trained:
        """The expert of the latest task."""
        return self.experts[-1]

    @property
    def length(self) -> int:
        """How many experts there are."""
        return len(self.experts)

    def __iter__(self) -> Iterator[Trained]:
        """The experts, oldest first."""
        return iter(self.experts)


History: TypeAlias = Experts | Recent


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """One merge of all experts of a history."""

    technique: ResolvedTechnique
    base: Base
    experts: History
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("merged", self.technique.key, self.base.key, self.experts.key))


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """One step of a running merge: the newest expert merged into what was there before."""

    technique: ResolvedTechnique
    base: Base
    older: "Recipe"
    newer: Trained
    weight: float | None  # the newest expert's share; None where the technique takes none
    key: str = field(init=False)

    def __post_init__(self) -> None:
        parts = (self.technique.pair_key, self.base.key, self.older.key, self.newer.key, self.weight)
        object.__setattr__(self, "key", key_of("running", *parts))


@dataclass(frozen=True, slots=True, eq=False)
class OuterStep:
    """One step of an outer optimiser: a step of a running merge, m, and `momentum` times how far it went lately.

    With s what the steps so far have made: m_t + μ (s_{t-1} - s_{t-2}), or with Nesterov m_t + μ (m_t - m_{t-1}).
    """

    merge: Running
    since: "Recipe"  # what the way is measured from: s_{t-2}, or with Nesterov m_{t-1}
    momentum: float
    nesterov: bool
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("outer", self.merge.key, self.since.key, self.momentum, self.nesterov))

    @property
    def base(self) -> Base:
        """The pretrained weights that the merge goes back to."""
        return self.merge.base

    @property
    def technique(self) -> ResolvedTechnique:
        """How the merge is made."""
        return self.merge.technique

    @property
    def older(self) -> "Recipe":
        """What the steps before this one have made."""
        return self.merge.older

    @property
    def newer(self) -> Trained:
        """The expert of the latest task."""
        return self.merge.newer


Merge: TypeAlias = Merged | Running | OuterStep
MERGES = (Merged, Running, OuterStep)


@dataclass(frozen=True, slots=True, eq=False)
class Patched:
    """θ_0 + α (θ - θ_0): a model at another distance from the base; α is the length."""

    model: Trained | Merge
    base: Base
    length: float
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("patched", self.model.key, self.base.key, self.length))


@dataclass(frozen=True, slots=True, eq=False)
class Reestimated:
    """A merge whose BatchNorm statistics are of the first batches that its newest expert was trained on.

    Which batches these are is said by that expert's recipe, which is part of the merge's.
    """

    merge: Merge | Patched
    batches: int
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", key_of("reestimated", STATISTICS_VERSION, self.merge.key, self.batches))

    @property
    def base(self) -> Base:
        """The pretrained weights that the merge goes back to."""
        return self.merge.base

    @property
    def newest(self) -> Trained:
        """The expert of the latest task."""
        return _newest(self.merge.model if isinstance(self.merge, Patched) else self.merge)


def _newest(model: Trained | Merge) -> Trained:
    match model:
        case Trained():
            return model
        case Merged():
            return model.experts.newest
        case Running() | OuterStep():
            return model.newer


Recipe: TypeAlias = Base | Trained | Merge | Patched | Reestimated
Kept: TypeAlias = Recipe | Moments  # what may lie in the store under its key


def merge_in(recipe: Recipe) -> Merge | None:
    """The merge that these weights are, or are made from; None where they are none."""
    found = recipe.merge if isinstance(recipe, Reestimated) else recipe
    found = found.model if isinstance(found, Patched) else found
    return found if isinstance(found, MERGES) else None


def experts_of(recipe: Recipe) -> list[Trained]:
    """The experts that a model or a merge is made of, oldest first; none of the base."""
    newer: list[Trained] = []
    while isinstance(recipe, (Running, OuterStep)):
        newer.append(recipe.newer)
        recipe = recipe.older
    oldest = list(recipe.experts) if isinstance(recipe, Merged) else [recipe] if isinstance(recipe, Trained) else []
    return [*oldest, *reversed(newer)]


def moments_of(recipe: Recipe) -> list[Moments]:
    """The second moments that these weights are merged by, oldest first: none unless their technique needs them."""
    merge = merge_in(recipe)
    return [Moments(one) for one in experts_of(merge)] if merge is not None and merge.technique.needs_moments else []


def merge_of(technique: ResolvedTechnique, base: Base, experts: History) -> Merged | Trained:
    """The merge of a history; one expert alone is that expert, if the technique leaves it as it is."""
    if experts.length == 1 and technique.identity_of_one:
        return experts.newest
    return Merged(technique, base, experts)


def patched(recipe: Recipe, base: Base, length: float) -> Recipe:
    """A model at this length, where its own is 1; one that was re-estimated is patched before that."""
    match recipe:
        case Base():
            return recipe
        case Reestimated():
            return reestimated(patched(recipe.merge, base, length), recipe.batches)
        case Patched():
            return patched(recipe.model, base, recipe.length * length)
    if length == 0:
        return base
    return recipe if length == 1 else Patched(recipe, base, float(length))


def reestimated(recipe: Recipe, batches: int | None) -> Recipe:
    """A merge with statistics of so many batches; itself for None, and where it is no merge: it has its own."""
    merges = (*MERGES, Patched)
    return Reestimated(recipe, batches) if batches is not None and isinstance(recipe, merges) else recipe


def describe(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain JSON values, experts by key: with theirs, enough to make the weights again."""
    match recipe:
        case Base():
            parts: dict[str, object] = {"model": recipe.model, "weights_digest": recipe.weights_digest}
            if recipe.preprocessing:
                parts["preprocessing"] = dict(recipe.preprocessing)
        case Trained(training=TaskTraining(given=GivenExpert(path, digest, dataset))):
            parts = {"start": _part(recipe.start), "given": PurePath(path).name, "digest": digest}
            parts |= {"dataset": dataset} if dataset else {}
        case Trained():
            training = recipe.training
            parts = {
                "start": _part(recipe.start),
                "task": training.task.number,
                "concepts": [list(concept) for concept in training.task.concepts],
                "replays": [[task.number, key_of(task.concepts)] for task in training.earlier],
                "training": training.config.identity,
                "mixture": training.mixture.model_dump(),
                "steps": training.steps,
                "seed": training.seed,
                "data": training.data_key,
                "version": TRAINING_VERSION,
            }
        case Merged():
            parts = {
                **_described(recipe.technique, recipe.technique.params),
                "base": describe(recipe.base),
                "experts": [expert.key for expert in recipe.experts],
            }
        case Running():
            parts = _described_steps(recipe)
        case OuterStep():
            parts = {**_described_steps(recipe.merge), "momentum": recipe.momentum, "nesterov": recipe.nesterov}
        case Patched():
            parts = {"model": _part(recipe.model), "base": describe(recipe.base), "length": recipe.length}
        case Reestimated():
            parts = {"merge": describe(recipe.merge), "batches": recipe.batches, "version": STATISTICS_VERSION}
    return {"kind": type(recipe).__name__.lower(), "key": recipe.key, **parts}


def describe_moments(moments: Moments) -> dict[str, object]:
    """As `describe`, of second moments."""
    return {"kind": "moments", "key": moments.key, "expert": _part(moments.expert), "version": MOMENTS_VERSION}


def _described(technique: ResolvedTechnique, params: Mapping[str, object]) -> dict[str, object]:
    return {"technique": technique.name, "params": dict(params), "version": technique.version}


def _described_steps(newest: Running) -> dict[str, object]:
    chain = list(_chain(newest))
    return {
        **_described(newest.technique, newest.technique.pair_params),
        "base": describe(newest.base),
        "first": _part(chain[-1].older),
        "experts": [step.newer.key for step in reversed(chain)],
        "weight": newest.weight,
    }


def _part(recipe: Recipe) -> dict[str, object]:
    """A part of another recipe; an expert has an entry of its own."""
    return {"kind": "trained", "key": recipe.key} if isinstance(recipe, Trained) else describe(recipe)


def _chain(newest: Running) -> "Iterator[Running | OuterStep]":
    """The steps of a running merge, newest first; technique, weight and momentum are the same in all."""
    step: Recipe = newest
    while isinstance(step, (Running, OuterStep)):
        yield step
        step = step.older
