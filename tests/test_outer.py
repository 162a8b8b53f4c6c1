"""The outer strategy: SNOO's step on slow weights, of which a running average is the case without momentum."""

from operator import attrgetter
from typing import Any

import pytest
import torch
from toy_grid import setting, technique

from time_ray import merging
from time_ray.core.keys import key_of
from time_ray.core.recipe import (
    Base,
    Experts,
    OuterStep,
    Recipe,
    Reestimated,
    ResolvedTechnique,
    Running,
    Trained,
    describe,
    patched,
    reestimated,
)
from time_ray.core.strategies import Ema, Outer, Strategy, Zs
from time_ray.realize import IncrementalMerges
from time_ray.weight_cache import Cache, Memory, Weights, num_bytes

AVERAGE = technique("average")
TIES = technique("ties", weighted=False, alone=False, keep=0.5)
NUM_TASKS = 6
TOYS = setting(NUM_TASKS)
MOMENTUM = [(0.5, True), (0.9, True), (0.5, False), (0.9, False)]


def history(num_tasks: int = NUM_TASKS) -> Experts:
    """Experts that all began at the base."""
    experts = None
    for training in TOYS.trainings[:num_tasks]:
        experts = Experts.add(experts, Trained(TOYS.base, training))
    assert experts is not None
    return experts


def weights_of(recipe: Recipe) -> Weights:
    """Weights in float64 that follow from the key alone, with the statistics of a BatchNorm."""
    random = torch.Generator().manual_seed(int(key_of(recipe.key)[:12], 16))
    shapes: dict[str, tuple[int, ...]] = {"w": (4, 8), "v": (16,)}
    made = {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
    variance = torch.rand(5, generator=random, dtype=torch.float64)
    return {**made, "bn.running_var": variance, "bn.num_batches_tracked": torch.tensor(3)}


def made(recipe: Recipe, limit: int = 10**9, lost: Recipe | None = None) -> Weights | None:
    """The tensors of a recipe, out of experts alone."""
    memory = Memory(limit)
    cache = Cache[Weights](memory, num_bytes)

    def read(of: Recipe) -> Weights | None:
        if lost is not None and of.key == lost.key:
            return None
        return weights_of(of) if isinstance(of, Trained) else cache.get(of.key)

    merges = IncrementalMerges(weights_of, read, cache, Cache[merging.Fold](memory, attrgetter("num_bytes")))
    if isinstance(recipe, Base):
        return weights_of(recipe)
    assert isinstance(recipe, Running | OuterStep)
    return merges(recipe)


def slow_weights(name: str, rate: float, momentum: float, nesterov: bool) -> torch.Tensor:
    """SNOO as its authors write it: torch's SGD on slow weights, whose gradient is their distance from the expert."""
    slow = weights_of(TOYS.base)[name].requires_grad_()
    optimizer = torch.optim.SGD([slow], lr=rate, momentum=momentum, nesterov=nesterov)
    for expert in history():
        slow.grad = slow.detach() - weights_of(expert)[name]
        optimizer.step()
    return slow.detach()


@pytest.mark.parametrize("rate", [0.3, 0.8, 1.0])
@pytest.mark.parametrize(("momentum", "nesterov"), MOMENTUM)
def test_an_average_with_momentum_is_the_outer_step_of_snoo(rate: float, momentum: float, nesterov: bool) -> None:
    found = made(Outer(rate=rate, momentum=momentum, nesterov=nesterov).recipe(TOYS.base, history(), AVERAGE))
    assert found is not None
    for name in ("w", "v"):
        torch.testing.assert_close(found[name], slow_weights(name, rate, momentum, nesterov), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("momentum", "nesterov"), MOMENTUM)
def test_it_is_linear_in_the_experts_with_coefficients_that_sum_to_one(momentum: float, nesterov: bool) -> None:
    """Each expert's coefficient is the rate times what momentum has made of it since, so s = c_0 θ_0 + Σ c_i θ_i."""
    rate, models = 0.4, [TOYS.base, *history()]
    slow, buffer = torch.eye(len(models), dtype=torch.float64)[0], torch.zeros(len(models), dtype=torch.float64)
    for number in range(1, len(models)):
        gradient = slow - torch.eye(len(models), dtype=torch.float64)[number]
        buffer = momentum * buffer + gradient
        slow = slow - rate * (momentum * buffer + gradient if nesterov else buffer)
    found = made(Outer(rate=rate, momentum=momentum, nesterov=nesterov).recipe(TOYS.base, history(), AVERAGE))
    assert found is not None
    assert slow.sum() == pytest.approx(1)
    combined = sum(share * weights_of(model)["w"] for share, model in zip(slow, models, strict=True))
    torch.testing.assert_close(found["w"], combined)


@pytest.mark.parametrize("of", [AVERAGE, TIES], ids=lambda of: of.name)
@pytest.mark.parametrize("nesterov", [True, False])
def test_without_momentum_it_is_the_running_merge_itself(of: ResolvedTechnique, nesterov: bool) -> None:
    outer = Outer(rate=0.3, momentum=0.0, nesterov=nesterov).recipe(TOYS.base, history(), of)
    assert outer.key == Ema(weight=0.3).recipe(TOYS.base, history(), of).key


def test_little_momentum_is_nearly_the_running_average() -> None:
    near, ema = (made(one.recipe(TOYS.base, history(), AVERAGE)) for one in (Outer(momentum=1e-9), Ema()))
    assert near is not None
    assert ema is not None
    torch.testing.assert_close(near["w"], ema["w"], rtol=0, atol=1e-7)


def test_heavy_ball_momentum_has_gone_nowhere_at_first() -> None:
    first = [Outer(nesterov=nesterov).recipe(TOYS.base, history(1), AVERAGE) for nesterov in (False, True)]
    assert first[0].key == Ema().recipe(TOYS.base, history(1), AVERAGE).key
    assert isinstance(first[1], OuterStep)


def test_a_rate_of_zero_never_leaves_the_base() -> None:
    assert Outer(rate=0.0).recipe(TOYS.base, history(), AVERAGE).key == Zs().recipe(TOYS.base, history(), AVERAGE).key


def test_a_rate_does_not_count_where_the_technique_takes_no_weight() -> None:
    one, other = (Outer(rate=rate).recipe(TOYS.base, history(), TIES) for rate in (0.0, 0.9))
    assert one.key == other.key


@pytest.mark.parametrize("of", [AVERAGE, TIES], ids=lambda of: of.name)
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_technique_makes_the_merge_and_momentum_is_added(of: ResolvedTechnique, nesterov: bool) -> None:
    """Task after task out of the library's functions, with the same bits, however little memory keeps."""
    strategy = Outer(rate=0.7, momentum=0.5, nesterov=nesterov)
    base = weights_of(TOYS.base)
    slow, before, merge_before = base, base, base
    params: dict[str, Any] = dict(of.pair_params)
    for expert in history():
        weight = 0.7 if of.weighted else 0.5
        merged = merging.pair(base, slow, weights_of(expert), of.name, weight=weight, ids=(None, expert.key), **params)
        way = (merged, merge_before) if nesterov else (slow, before)
        before, merge_before = slow, merged
        slow = merging.with_momentum(merged, *way, 0.5)
    for limit in (0, 10**9):
        found = made(strategy.recipe(TOYS.base, history(), of), limit)
        assert found is not None
        assert all(torch.equal(found[name], tensor) for name, tensor in slow.items())


@pytest.mark.parametrize("strategy", [Outer(), Outer(nesterov=False)], ids=lambda strategy: strategy.label)
def test_a_step_goes_on_from_the_one_before_and_waits_for_a_lost_expert(strategy: Strategy) -> None:
    recipe = strategy.recipe(TOYS.base, history(), AVERAGE)
    assert isinstance(recipe, OuterStep)
    shorter = history().previous
    assert shorter is not None
    assert recipe.older.key == strategy.recipe(TOYS.base, shorter, AVERAGE).key
    assert made(recipe, limit=0, lost=next(iter(history()))) is None


def test_a_variance_is_never_carried_on() -> None:
    outer = made(Outer(rate=0.5, momentum=0.99).recipe(TOYS.base, history(), AVERAGE))
    assert outer is not None
    assert (outer["bn.running_var"] >= 0).all()
    assert outer["bn.num_batches_tracked"] == 3


def test_statistics_of_batch_norm_may_be_of_the_newest_tasks_batches() -> None:
    served = patched(Outer().recipe(TOYS.base, history(), AVERAGE), TOYS.base, 0.5)
    for recipe in (served, Outer().recipe(TOYS.base, history(), AVERAGE)):
        found = reestimated(recipe, 2)
        assert isinstance(found, Reestimated)
        assert found.newest.key == history().newest.key
        assert found.base.key == TOYS.base.key


def test_its_description_says_how_to_make_it_again() -> None:
    said = describe(Outer(rate=0.7, nesterov=False).recipe(TOYS.base, history(3), AVERAGE))
    assert said["kind"] == "outerstep"
    assert (said["weight"], said["momentum"], said["nesterov"]) == (0.7, 0.5, False)
    assert said["experts"] == [expert.key for expert in history(3)]
    assert said["first"] == describe(TOYS.base)


@pytest.mark.nightly
def test_a_long_stream_is_no_deep_recursion() -> None:
    toys, experts = setting(1200), None
    for training in toys.trainings:
        experts = Experts.add(experts, Trained(toys.base, training))
        newest = Outer().recipe(toys.base, experts, AVERAGE)
    assert made(newest) is not None


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"rate": 1.5}, {"momentum": -0.1}])
def test_rates_that_cannot_settle_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Outer.model_validate(wrong)
