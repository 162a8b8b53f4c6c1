"""The closed forms of merging over time, and what a running merge may not do."""

import pytest
import torch
from merging_toys import moved, near, same, toy, vector, world

from time_ray.merging import MergeError, ema, fold, merge, pair


def line(base, experts, *args, **params):
    return ema({"w": base}, [{"w": expert} for expert in experts], *args, **params)["w"]


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_running_average_has_geometric_weights(weight):
    base, experts = vector(30, 0), [vector(30, seed) for seed in range(1, 6)]
    geometric = sum(weight * (1 - weight) ** (5 - i) * expert for i, expert in enumerate(experts, 1))
    expected = geometric + (1 - weight) ** 5 * base
    assert torch.allclose(line(base, experts, "average", start="base", weight=weight), expected, atol=1e-6)
    expected = geometric + (1 - weight) ** 5 * experts[0]
    assert torch.allclose(line(base, experts, "average", start="expert", weight=weight), expected, atol=1e-6)


@pytest.mark.parametrize("technique", ["average", "task_arithmetic", "ties", "slerp", "opcm"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_at_the_end(technique, dtype):
    base, experts = world(6, dtype)
    wide = [{k: v.float() if v.is_floating_point() else v for k, v in one.items()} for one in (base, *experts)]
    wanted = ema(wide[0], wide[1:], technique, weight=0.3)
    found = ema(base, experts, technique, weight=0.3)
    assert same(found, {k: v.to(dtype) if v.is_floating_point() else v for k, v in wanted.items()})


@pytest.mark.parametrize("name", ["average", "slerp"])
def test_a_weight_of_nothing_or_of_all_gives_a_model_to_the_bit(name):
    base, (older, newer, *_) = world()
    assert same(pair(base, older, newer, name, weight=0), older)
    assert same(pair(base, older, newer, name, weight=1), newer)


@pytest.mark.parametrize("scaling", [0.1, 0.5, 0.8])
def test_running_task_arithmetic_grows_by_twice_its_scaling(scaling):
    """With each expert trained from the running merge: d_t = 2λ d_{t−1} + λ δ_t; λ = 0.5 is the average."""
    base = running = {"w": vector(30, 0)}
    moved_so_far = torch.zeros(30)
    for step in range(1, 6):
        change = 0.1 * vector(30, step)
        expert = {"w": running["w"] + change}
        halfway = pair(base, running, expert, "average", weight=0.5)
        running = pair(base, running, expert, "task_arithmetic", scaling=scaling)
        moved_so_far = 2 * scaling * moved_so_far + scaling * change
        assert torch.allclose(running["w"] - base["w"], moved_so_far, atol=1e-5)
        if scaling == 0.5:
            assert near(running, halfway)


def test_running_average_is_a_step_towards_the_change():
    base = running = {"w": vector(30, 0)}
    for step in range(1, 5):
        change = vector(30, step)
        merged = pair(base, running, {"w": running["w"] + change}, "average", weight=0.3)
        assert torch.allclose(merged["w"], running["w"] + 0.3 * change, atol=1e-6)
        running = merged


@pytest.mark.parametrize("scaling", [1.0, 0.4])
@pytest.mark.parametrize("start", ["base", "expert"])
def test_running_magmax_is_magmax(scaling, start):
    base, experts = world(5)
    assert near(
        ema(base, experts, "magmax", start=start, scaling=scaling), merge(base, experts, "magmax", scaling=scaling)
    )


def test_running_dare_masks_every_expert_once():
    base, experts = world(5)
    kept = [merge(base, [expert], "dare", drop=0.5, scaling=1.0, ids=[str(i)]) for i, expert in enumerate(experts, 1)]
    name = "token_embedding.weight"
    vectors = [one[name] - base[name] for one in kept]
    result = ema(base, experts, "dare", start="expert", drop=0.5, scaling=1.0)
    assert torch.allclose(result[name] - base[name], sum(vectors), atol=1e-6)


def test_random_pairs_must_be_named():
    base, experts = world(2)
    with pytest.raises(MergeError, match=r"ids=\(None, id of the newer expert\)"):
        pair(base, *experts, "dare")


def test_model_stock_from_the_base_never_moves_and_from_an_expert_does():
    base, experts = world(3)
    shared = [moved(expert, 99, by=1.0) for expert in experts]
    stuck = ema(base, shared, "model_stock", start="base")
    free = ema(base, shared, "model_stock", start="expert")
    name = "token_embedding.weight"
    assert torch.allclose(stuck[name], base[name])
    assert (free[name] - base[name]).norm() > 1


def test_running_slerp_over_experts_has_equal_shares():
    base, experts = world(3)
    halves = pair(base, experts[0], experts[1], "slerp", weight=0.5)
    assert same(merge(base, experts, "slerp"), pair(base, halves, experts[2], "slerp", weight=1 / 3))


def test_fold_reports_before_and_survives_refusal():
    base, experts = world(3)
    running = fold("ties", base)
    with pytest.raises(MergeError, match="none is given"):
        running.result()
    running.add(experts[0])
    broken = {**toy(1), "visual.proj": torch.full((4, 5), float("nan"))}
    for technique in ("ties", "average"):
        running = fold(technique, base)
        running.add(experts[0])
        with pytest.raises(MergeError, match=r"expert 2: visual\.proj holds NaN or Inf"):
            running.add(broken)
        with pytest.raises(MergeError, match="expert 2: has no empty"):
            running.add({name: value for name, value in experts[1].items() if name != "empty"})
        running.add(experts[1])
        assert same(running.result(), merge(base, experts[:2], technique))


def test_fold_takes_ids_once():
    base, experts = world(2)
    running = fold("dare", base)
    running.add(experts[0], id="task-a")
    with pytest.raises(MergeError, match="repeat"):
        running.add(experts[1], id="task-a")
    running.add(experts[1], id="task-b")
    assert same(running.result(), merge(base, experts, "dare", ids=["task-a", "task-b"]))
