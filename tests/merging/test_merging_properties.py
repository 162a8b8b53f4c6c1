"""What holds for any numbers, not only for friendly ones."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merging_toys import same

from time_ray.merging import TECHNIQUES, fold, merge, pair
from time_ray.merging.declaration import holds
from time_ray.merging.engine import MergePlan, Merger
from time_ray.merging.in_memory import MemoryOutput
from time_ray.merging.models import MemoryModel
from time_ray.merging.pieces import Expert

ELEMENTWISE = sorted(name for name, row in TECHNIQUES.items() if holds(row.elementwise, row.fill({})))
# Signed zeros, equal magnitudes and subnormals are where vector and scalar instructions may part.
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1e-40, -1e-40]),
    st.floats(-1e3, 1e3, width=32, allow_nan=False),
)
MODELS = st.integers(1, 43).flatmap(
    lambda size: st.lists(st.lists(NUMBERS, min_size=size, max_size=size), min_size=2, max_size=4)
)


def as_model(row):
    return {"w": torch.tensor(row, dtype=torch.float32)}


def in_chunks(base, experts, name, chunk):
    """The merge, cut into chunks."""
    row = TECHNIQUES[name]
    plan = MergePlan(MemoryModel(base, "base"), row.build(row.fill({}), ["w"]), chunk)
    models, output = [MemoryModel(expert, "expert") for expert in experts], MemoryOutput(plan, {})
    bounded = [plan.with_bounds(model, Expert(number, str(number))) for number, model in enumerate(models, 1)]
    Merger(plan, models, bounded, output.write).run()
    return output.whole()


@settings(max_examples=40, deadline=None)
@given(MODELS, st.sampled_from(ELEMENTWISE), st.sampled_from([1, 2, 7]))
def test_any_cut_and_any_order_of_work_give_equal_bits(rows, name, chunk):
    base, *experts = map(as_model, rows)
    whole = merge(base, experts, name)
    assert same(in_chunks(base, experts, name, chunk), whole)
    running = fold(name, base)
    for expert in experts:
        running.add(expert)
    assert same(running.result(), whole)


@settings(max_examples=40, deadline=None)
@given(MODELS, st.floats(0, 1))
def test_averages_stay_between_their_experts(rows, weight):
    base, *experts = map(as_model, rows)
    stacked = torch.stack([expert["w"] for expert in experts])
    low, high = stacked.min(0).values, stacked.max(0).values
    slack = 1e-5 * stacked.abs().max(0).values + 1e-38
    for merged in (
        merge(base, experts, "average", weights="log"),
        pair(base, experts[0], experts[-1], "average", weight=weight),
    ):
        assert ((low - slack <= merged["w"]) & (merged["w"] <= high + slack)).all()


@settings(max_examples=40, deadline=None)
@given(MODELS, st.floats(0, 1), st.sampled_from(["ties", "magmax", "breadcrumbs_ties"]))
def test_selections_never_exceed_the_largest_change(rows, keep, name):
    base, *experts = map(as_model, rows)
    base = {"w": torch.zeros_like(base["w"])}
    params = {"keep": keep} if name == "ties" else {}
    largest = torch.stack([expert["w"].abs() for expert in experts]).max(0).values
    assert (merge(base, experts, name, **params)["w"].abs() <= largest * (1 + 1e-6)).all()


@settings(max_examples=40, deadline=None)
@given(MODELS, st.floats(-3, 3))
def test_task_arithmetic_is_odd_in_its_scaling(rows, scaling):
    base, *experts = map(as_model, rows)
    zero = {"w": torch.zeros_like(base["w"])}
    there = merge(zero, experts, "task_arithmetic", scaling=scaling)["w"]
    assert torch.equal(merge(zero, experts, "task_arithmetic", scaling=-scaling)["w"], -there)
