"""From a recipe to its tensors: found in the store, trained, or merged. The one place for all three."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

from time_ray import merging
from time_ray.core.recipe import (
    Base,
    History,
    Kept,
    Merge,
    Merged,
    Moments,
    OuterStep,
    Patched,
    Recipe,
    Reestimated,
    ResolvedTechnique,
    Running,
    Trained,
    experts_of,
    moments_of,
)
from time_ray.weight_cache import Cache, Weights

PAUSE_SECONDS = 0.1  # before the store is asked again for what another trial is making
LONGEST_PAUSE_SECONDS = 5.0

Waiting: TypeAlias = Generator[None, None, None]  # yields while another trial makes what is needed here


class WeightBackend(Protocol):
    """Where weights are made and kept. A trial's workers make the same calls in the same order, with equal results."""

    def load(self, base: Base) -> Weights:
        """The pretrained weights."""

    def train(self, expert: Trained, start: Weights) -> Weights:
        """The expert: the start, trained on the recipe's task."""

    def merge(self, merge: Merge) -> Weights | None:
        """The merged weights; None while an expert of theirs is not in the store, or not whole there."""

    def patch(self, recipe: Patched, weights: Weights) -> Weights:
        """The weights at the recipe's distance from the base."""

    def reestimate(self, recipe: Reestimated, weights: Weights) -> Weights:
        """The merged weights with BatchNorm statistics of the recipe's batches."""

    def has(self, recipe: Kept) -> bool:
        """Whether the weights, or second moments, are in the store; what was found damaged is not."""

    def get(self, recipe: Recipe) -> Weights | None:
        """The weights from the store, or None."""

    def put(self, recipe: Recipe, weights: Weights) -> None:
        """The weights are in the store; of an expert its second moments, too, if cells of the study need them."""

    def lease(self, name: str) -> AbstractContextManager[bool]:
        """True: what has this name is ours to make. False: another trial is making it; look again later."""


def realize(recipe: Recipe, backend: WeightBackend) -> Weights:
    """The tensors of a recipe, taken from the store where they are there and made where they are not.

    Experts of a merge that are lost, or no longer whole in the store, are trained again; so are those whose second
    moments it needs and does not find.

    Raises:
        CellError: A training that it takes failed.
        StoreError: The storage cannot be read or written just now.

    """
    if isinstance(recipe, Base):
        return backend.load(recipe)
    if isinstance(recipe, (Patched, Reestimated)):
        found = backend.get(recipe)
        return _changed(recipe, backend) if found is None else found
    while (weights := _found_or_merged(recipe, backend)) is None:
        parts: list[Trained | Moments] = [*experts_of(recipe), *moments_of(recipe)]
        for part in parts:
            for _, seconds in zip(obtain(part, backend), pauses(), strict=False):
                time.sleep(seconds)
    return weights


def pauses() -> Iterator[float]:
    """Seconds before each further look at what another trial is making: about a tenth of the time waited so far."""
    seconds = PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(1.1 * seconds, LONGEST_PAUSE_SECONDS)


def _changed(recipe: Patched | Reestimated, backend: WeightBackend) -> Weights:
    """The model that the recipe changes is realised, and changed."""
    if isinstance(recipe, Patched):
        return backend.patch(recipe, realize(recipe.model, backend))
    return backend.reestimate(recipe, realize(recipe.merge, backend))


def obtain(part: Trained | Moments, backend: WeightBackend) -> Waiting:
    """An expert, or what its training left, is in the store: found there, made here, or meanwhile by another trial.

    Yields:
        None, while the other trial trains it.

    Raises:
        CellError: Its training failed.
        StoreError: The storage cannot be read or written just now.

    """
    expert = part.expert if isinstance(part, Moments) else part
    while not backend.has(part):
        with backend.lease(expert.key) as ours:
            if ours and not backend.has(part):
                backend.put(expert, backend.train(expert, realize(expert.start, backend)))
        if not ours:
            yield


def _found_or_merged(recipe: Trained | Merge, backend: WeightBackend) -> Weights | None:
    found = backend.get(recipe)
    return backend.merge(recipe) if found is None and not isinstance(recipe, Trained) else found


class IncrementalMerges:
    """Merges as experts arrive: each goes on from the one before it, so a trajectory of T tasks does T merges.

    Args:
        load: Gives the weights of a base.
        read: Gives those of an expert or an earlier merge, or second moments, if they are at hand, else None.
        cache: Keeps merges for those that go on from them.
        folds: Keeps merges of all experts open for the next expert; one that is let go is begun anew.

    """

    def __init__(
        self,
        load: Callable[[Base], Weights],
        read: Callable[[Kept], Weights | None],
        cache: Cache[Weights],
        folds: Cache[merging.Fold],
    ) -> None:
        self._load = load
        self._read = read
        self._cache = cache
        self._folds = folds

    def __call__(self, merge: Merge, device: str = "cpu") -> Weights | None:
        """The merged weights, on the CPU; None if something that they are made of is not at hand.

        `device` does the arithmetic, but where moments count: those merges are done on the CPU.
        """
        held = self._cache.get(merge.key)
        if held is not None:
            return held
        match merge:
            case Merged(technique=technique) if technique.needs_moments:
                return self._all_by_moments(merge)
            case Merged():
                return self._all(merge, device)
            case Running():
                return self._running(merge, device)
            case OuterStep():
                return self._outer(merge, device)

    def _running(self, merge: Running, device: str) -> Weights | None:
        """Go back to the newest part that is at hand, and from there on merge step by step."""
        steps, older = [merge], merge.older
        while (weights := self._part(older, device)) is None and isinstance(older, Running):
            steps.append(older)
            older = older.older
        for step in reversed(steps):
            weights = None if weights is None else self._step(step, weights, device)
            if weights is None:
                return None
            self._cache.put(step.key, weights)
        return weights

    def _outer(self, wanted: OuterStep, device: str) -> Weights | None:
        """Go back to a step whose two models before it are at hand, and from there on make step by step."""
        steps = [wanted]
        while (held := self._before(steps[-1], device)) is None and isinstance(steps[-1].older, OuterStep):
            steps.append(steps[-1].older)
        for step in reversed(steps):
            if held is None:
                return None
            older_weights, since = held
            merged = self._step(step.merge, older_weights, device)
            if merged is None:
                return None
            latest = merged if step.nesterov else older_weights
            weights = merging.with_momentum(merged, latest, since, step.momentum)
            if step.nesterov:
                self._cache.put(step.merge.key, merged)
            self._cache.put(step.key, weights)
            held = weights, latest
        return None if held is None else held[0]

    def _before(self, step: OuterStep, device: str) -> tuple[Weights, Weights] | None:
        """What an outer step goes on from, and what its way is measured from, if both are at hand."""
        older = self._at_hand(step.older)
        if older is None and isinstance(step.older, Running):
            older = self._running(step.older, device)
        since = None if older is None else self._at_hand(step.since)
        return None if older is None or since is None else (older, since)

    def _at_hand(self, recipe: Recipe) -> Weights | None:
        return self._load(recipe) if isinstance(recipe, Base) else self._read(recipe)

    def _part(self, recipe: Recipe, device: str) -> Weights | None:
        found = self._at_hand(recipe)
        return self(recipe, device) if found is None and isinstance(recipe, (Merged, OuterStep)) else found

    def _step(self, step: Running, older: Weights, device: str) -> Weights | None:
        newer = self._read(step.newer)
        if newer is None:
            return None
        if step.technique.needs_moments:
            return self._step_by_moments(step, older, newer)
        expert = step.older.key if isinstance(step.older, Trained) else None  # None: a merge, never masked again
        params: dict[str, Any] = dict(step.technique.pair_params)
        return merging.pair(
            self._load(step.base),
            older,
            newer,
            step.technique.name,
            weight=0.5 if step.weight is None else step.weight,
            ids=(expert, step.newer.key),
            device=device,
            **params,
        )

    def _step_by_moments(self, step: Running, older: Weights, newer: Weights) -> Weights | None:
        """The newest expert counts by its moments, the older model by the sum of its experts'; the base by none."""
        newest, known = self._read(Moments(step.newer)), self._known(step.older)
        if newest is None or known is None:
            return None
        known = known or {name: 0 * tensor for name, tensor in newest.items()}
        self._cache.put(_moments_place(step), _sum(known, newest))
        params = dict(step.technique.pair_params)
        return merging.merge_by_moments(step.technique.name, [older, newer], [known, newest], params)

    def _known(self, older: Recipe) -> Weights | None:
        """The sum of the moments of all experts in a model, oldest first; of none it is empty."""
        held = self._cache.get(_moments_place(older))
        if held is not None:
            return held
        known: Weights = {}
        for expert in experts_of(older):
            moments = self._read(Moments(expert))
            if moments is None:
                return None
            known = _sum(known, moments) if known else moments
        return known

    def _all_by_moments(self, merge: Merged) -> Weights | None:
        models, moments = self._each(merge.experts), self._each(moments_of(merge))
        if models is None or moments is None:
            return None
        params = dict(merge.technique.params)
        weights = merging.merge_by_moments(merge.technique.name, models, moments, params)
        self._cache.put(merge.key, weights)
        return weights

    def _each(self, parts: Iterable[Kept]) -> list[Weights] | None:
        """All of these; None if one is not at hand."""
        found = []
        for part in parts:
            weights = self._read(part)
            if weights is None:
                return None
            found.append(weights)
        return found

    def _all(self, merge: Merged, device: str) -> Weights | None:
        """Add to a fold whatever it has not seen yet; begin a new one if none went this way."""
        fold, missing = self._continued(merge) or self._begun(merge, device)
        fold.move_to(device)
        for expert in missing:
            weights = self._read(expert)
            if weights is None:
                return None
            fold.add(weights, id=expert.key)
        self._folds.put(_place(merge.technique, merge.experts), fold)
        weights = fold.result()
        self._cache.put(merge.key, weights)
        return weights

    def _continued(self, merge: Merged) -> tuple[merging.Fold, list[Trained]] | None:
        """The fold that has seen most of this history, and the experts that came after it, oldest first."""
        newer: list[Trained] = []
        link: History | None = merge.experts
        while link is not None:
            fold = self._folds.take(_place(merge.technique, link))
            if fold is not None:
                return fold, newer[::-1]
            newer.append(link.newest)
            link = link.previous
        return None

    def _begun(self, merge: Merged, device: str) -> tuple[merging.Fold, list[Trained]]:
        params: dict[str, Any] = dict(merge.technique.params)
        base = self._load(merge.base)
        return merging.fold(merge.technique.name, base, device=device, **params), list(merge.experts)


def _sum(one: Weights, other: Weights) -> Weights:
    return {name: tensor + other[name] for name, tensor in one.items()}


def _moments_place(recipe: Recipe) -> str:
    """Where the sum of the moments of a model's experts is kept in memory."""
    return f"moments {recipe.merge.key if isinstance(recipe, OuterStep) else recipe.key}"


def _place(technique: ResolvedTechnique, experts: History) -> str:
    """Where the fold of these experts is kept."""
    return f"{technique.key} {experts.key}"
