"""Windows and outer steps in a real sweep: what is served and what training starts from, made again from experts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from time_ray import api, merging
from time_ray.clip.models import base_weights
from time_ray.core.grid import Step
from time_ray.core.recipe import Recipe
from time_ray.store.store import Store
from time_ray.weight_cache import Weights

pytestmark = pytest.mark.usefixtures("untracked")

WINDOWS = {
    "init": {"name": "window", "size": 2},
    "deploy": [{"name": "window", "size": 2}, {"name": "window", "size": 3}, "all", "outer"],
    "stream": {"tasks": 4},
}
SIZES = {"window(size=2)": 2, "window": 3, "all": 4}
PARAMS: dict[str, dict[str, Any]] = {"average": {}, "ties": {"scaling": 0.5}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Callable[..., Path]) -> api.Opened:
    opened = api.open_experiment(new_experiment(tmp_path_factory.mktemp("windows"), **WINDOWS))
    assert api.sweep(opened).exit_code == 0
    return opened


def stored(store: Store, recipe: Recipe) -> Weights:
    weights = store.get(recipe.key)
    assert weights is not None
    return weights


def merged(store: Store, base: Weights, steps: list[Step], technique: str) -> Weights:
    """The experts of these steps, merged without a recipe."""
    experts = {step.expert.key: stored(store, step.expert) for step in steps}
    return merging.merge(base, list(experts.values()), technique, ids=list(experts), **PARAMS[technique])


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("technique", list(PARAMS))
@pytest.mark.parametrize("deploy", list(SIZES))
def test_what_is_served_is_the_merge_of_the_last_experts(swept: api.Opened, deploy: str, technique: str) -> None:
    (cell,) = [c for c in swept.study.cells if (c.deploy.label, c.technique.name) == (deploy, technique)]
    steps, base = list(cell.walk()), base_weights(cell.setting.model)
    served = stored(swept.store, steps[-1].deployed)
    assert same(served, merged(swept.store, base, steps[-SIZES[deploy] :], technique))
    for size in set(SIZES.values()) - {SIZES[deploy]}:
        assert not same(served, merged(swept.store, base, steps[-size:], technique))


@pytest.mark.parametrize("technique", list(PARAMS))
def test_what_outer_serves_is_a_running_merge_with_momentum(swept: api.Opened, technique: str) -> None:
    (cell,) = [c for c in swept.study.cells if (c.deploy.label, c.technique.name) == ("outer", technique)]
    steps = list(cell.walk())
    slow = before = base = base_weights(cell.setting.model)
    for step in steps:
        expert = stored(swept.store, step.expert)
        ids = (None, step.expert.key)
        now = merging.pair(base, slow, expert, technique, weight=0.5, ids=ids, **PARAMS[technique])
        slow, before = merging.with_momentum(now, now, before, 0.5), now
    assert same(stored(swept.store, steps[-1].deployed), slow)


def test_every_technique_trains_experts_of_its_own(swept: api.Opened) -> None:
    """From the second task on: the first starts from the base."""
    trained = {c.technique.name: [step.expert.key for step in c.walk()] for c in swept.study.cells}
    assert [one == other for one, other in zip(*trained.values(), strict=True)] == [True, False, False, False]
    assert len({c.trajectory for c in swept.study.cells}) == 2
