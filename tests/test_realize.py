"""Merges as experts arrive: T merges for T tasks, the bits of merging all at once, and what a lost expert costs."""

from collections import Counter
from operator import attrgetter
from typing import Any

import pytest
import torch
from toy_grid import setting, strategies, technique

from time_ray import merging
from time_ray.core.grid import Cell, grid
from time_ray.core.keys import key_of
from time_ray.core.recipe import Merged, Recipe, ResolvedTechnique, Running, Trained
from time_ray.realize import IncrementalMerges
from time_ray.weight_cache import Cache, Memory, Weights, num_bytes

TECHNIQUES = [technique("average"), technique("ties", keep=0.5), technique("dare", drop=0.3, seed=1)]


def weights_of(recipe: Recipe) -> Weights:
    """Weights that follow from the key alone."""
    random = torch.Generator().manual_seed(int(key_of(recipe.key)[:12], 16))
    return {"w": torch.randn(4, 8, generator=random), "v": torch.randn(16, generator=random)}


class Disk:
    """A store that has every expert but those that are lost, and no merge; `reads` counts the experts it gave."""

    def __init__(self, limit: int = 10**9) -> None:
        self.reads = Counter[str]()
        self.lost: set[str] = set()
        self.memory = memory = Memory(limit)
        self.cache = Cache[Weights](memory, num_bytes)
        self.folds = Cache[merging.Fold](memory, attrgetter("num_bytes"))
        self.merges = IncrementalMerges(weights_of, self.read, self.cache, self.folds)

    def folds_held(self) -> list[merging.Fold]:
        return [value for (cache, _), (value, _) in self.memory._held.items() if cache is self.folds]

    def read(self, recipe: Recipe) -> Weights | None:
        if not isinstance(recipe, Trained):
            return self.cache.get(recipe.key)
        self.reads[recipe.key] += 1
        return None if recipe.key in self.lost else weights_of(recipe)


def cell(strategy: str, how: ResolvedTechnique, num_tasks: int = 5) -> Cell:
    (found,) = grid(strategies(["ft"]), strategies([strategy]), [how], [setting(num_tasks)])
    return found


def deployed(strategy: str, how: ResolvedTechnique, num_tasks: int = 5) -> list[Any]:
    """What a cell deploys over time, as far as it is a merge."""
    found = [step.deployed for step in cell(strategy, how, num_tasks).walk()]
    return [recipe for recipe in found if isinstance(recipe, Merged | Running)]


def at_once(merge: Merged | Running) -> Weights:
    """The same merge from nothing."""
    if isinstance(merge, Merged):
        experts = list(merge.experts)
        models, ids = [weights_of(expert) for expert in experts], [expert.key for expert in experts]
        return merging.merge(weights_of(merge.base), models, merge.technique.name, ids=ids, **merge.technique.params)
    older = at_once(merge.older) if isinstance(merge.older, Running) else weights_of(merge.older)
    ids = (merge.older.key if isinstance(merge.older, Trained) else None, merge.newer.key)
    params, weight = merge.technique.pair_params, 0.5 if merge.weight is None else merge.weight
    models = (weights_of(merge.base), older, weights_of(merge.newer))
    return merging.pair(*models, merge.technique.name, weight=weight, ids=ids, **params)


def same(one: Weights | None, other: Weights) -> bool:
    return one is not None and all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("strategy", ["ema", "all"])
@pytest.mark.parametrize("how", TECHNIQUES, ids=lambda how: how.name)
def test_a_trajectory_reads_every_expert_once(strategy: str, how: ResolvedTechnique) -> None:
    disk = Disk()
    for merge in deployed(strategy, how):
        assert same(disk.merges(merge), at_once(merge))
    assert set(disk.reads.values()) == {1}


@pytest.mark.parametrize("strategy", ["ema", "all"])
@pytest.mark.parametrize("how", TECHNIQUES, ids=lambda how: how.name)
def test_a_merge_that_starts_late_has_the_same_bits(strategy: str, how: ResolvedTechnique) -> None:
    for merge in deployed(strategy, how):
        assert same(Disk().merges(merge), at_once(merge))


@pytest.mark.parametrize("strategy", ["ema", "all"])
@pytest.mark.parametrize("lost", [0, 2, 4])
def test_a_merge_waits_for_an_expert_that_is_lost(strategy: str, lost: int) -> None:
    steps = list(cell(strategy, TECHNIQUES[1]).walk())
    disk = Disk(limit=0)  # in memory stays the newest merge alone
    disk.lost = {steps[lost].expert.key}
    assert disk.merges(steps[-1].deployed) is None
    disk.lost.clear()
    assert same(disk.merges(steps[-1].deployed), at_once(steps[-1].deployed))


def test_a_long_stream_is_no_deep_recursion() -> None:
    merges = deployed("ema", TECHNIQUES[0], num_tasks=1200)
    assert Disk().merges(merges[-1]) is not None


def test_cells_that_share_experts_keep_their_own_merges() -> None:
    disk = Disk()
    trajectories = [deployed(strategy, how) for strategy in ("ema", "all") for how in TECHNIQUES]
    for merges in zip(*trajectories, strict=False):
        for merge in merges:
            assert same(disk.merges(merge), at_once(merge))


@pytest.mark.parametrize("models", [0, 12])
def test_folds_that_do_not_fit_are_begun_anew(models: int) -> None:
    """Eight cells with folds of four models each, in step: whatever the memory holds, bits are the same."""
    size = num_bytes(weights_of(setting(1).base))
    disk = Disk(limit=models * size)
    how = [technique("ties", keep=round(0.1 * share, 1)) for share in range(1, 9)]
    for merges in zip(*(deployed("all", each) for each in how), strict=True):
        for merge in merges:
            assert same(disk.merges(merge), at_once(merge))
            held = sum(fold.num_bytes for fold in disk.folds_held())
            assert held <= max(models, 4) * size
    assert max(disk.reads.values()) > len(how)  # what was let go was read again
