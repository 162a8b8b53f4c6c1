"""What every technique must do; a new one joins by being in the table."""

import copy

import pytest
import torch
from merging_toys import SHAPES, near, same, world
from safetensors.torch import load_file, save_file

from time_ray.merging import TECHNIQUES, MergeError, ema, fold, merge, merge_files, normalise, pair
from time_ray.merging.declaration import holds

NAMES = list(TECHNIQUES)
CASES = [(name, params) for name in NAMES for params in [{}, *TECHNIQUES[name].examples]]


def claiming(claim):
    """The cases in which a technique says so of itself."""
    rows = [(TECHNIQUES[name], name, params) for name, params in CASES]
    return [(name, params) for row, name, params in rows if holds(getattr(row, claim), row.fill(params))]


@pytest.mark.parametrize(("name", "params"), CASES)
def test_nothing_but_the_result_is_new(name, params):
    base, experts = world()
    before = copy.deepcopy((base, experts))
    merged = merge(base, experts, name, **params)
    assert all(same(left, right) for left, right in zip([base, *experts], [before[0], *before[1]], strict=True))
    assert [(key, value.shape, value.dtype) for key, value in merged.items()] == [
        (key, value.shape, value.dtype) for key, value in base.items()
    ]
    for value in merged.values():
        value.zero_()
    assert same(base, before[0])


@pytest.mark.parametrize(("name", "params"), CASES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_low_precision_is_merged_in_float32_and_rounded_once(name, params, dtype):
    base, experts = world(3, dtype)
    wide = [
        {key: value.to(torch.float32) if value.is_floating_point() else value for key, value in model.items()}
        for model in (base, *experts)
    ]
    merged, reference = merge(base, experts, name, **params), merge(wide[0], wide[1:], name, **params)
    for key in SHAPES:
        if dtype == torch.float64:
            assert torch.allclose(merged[key].float(), reference[key], atol=1e-5)
        else:
            assert torch.equal(merged[key], reference[key].to(dtype))


@pytest.mark.parametrize(("name", "params"), CASES)
def test_fold_equals_all_at_once_at_every_time(name, params):
    base, experts = world()
    running = fold(name, base, **params)
    for count, expert in enumerate(experts, 1):
        running.add(expert)
        assert same(running.result(), merge(base, experts[:count], name, **params))


@pytest.mark.parametrize(("name", "params"), CASES)
def test_streamed_equals_in_memory_for_any_chunk_and_threads(name, params, tmp_path):
    base, experts = world()
    paths = [tmp_path / f"{number}.safetensors" for number in range(5)]
    for model, path in zip([base, *experts], paths, strict=True):
        save_file(model, path)
    order = {key: base[key] for key in load_file(paths[0])}
    reference = merge(order, experts, name, **params)
    for chunk, threads in ((1, 1), (7, 2), (1 << 20, 3)):
        merge_files(paths[0], paths[1:], tmp_path / "out", name, chunk=chunk, threads=threads, **params)
        streamed = load_file(tmp_path / "out")
        assert near(streamed, reference)
        if (name, params) in claiming("elementwise"):
            assert all(torch.equal(streamed[key], reference[key]) for key in reference)


@pytest.mark.parametrize("name", NAMES)
def test_zero_task_vectors_give_the_base(name):
    base, _ = world()
    assert near(merge(base, [base, base, base], name), base)


@pytest.mark.parametrize(("name", "params"), claiming("faithful"))
def test_copies_of_one_expert_are_that_expert(name, params):
    base, experts = world()
    assert near(merge(base, [experts[0]] * 3, name, ids=["a", "b", "c"], **params), experts[0])


@pytest.mark.parametrize("name", NAMES)
def test_one_expert_alone_is_itself_where_the_table_says_so(name):
    base, (expert, *_) = world()
    alone = TECHNIQUES[name].single_is_identity({})
    assert same(merge(base, [expert], name), expert) or not alone
    assert same(ema(base, [expert], name, start="expert"), expert)


@pytest.mark.parametrize(("name", "params"), claiming("symmetric"))
def test_order_does_not_matter_where_the_rule_has_none(name, params):
    base, experts = world()
    backwards = merge(base, experts[::-1], name, ids=["4", "3", "2", "1"], **params)
    assert near(merge(base, experts, name, **params), backwards, 1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if TECHNIQUES[name].random])
def test_random_techniques_depend_on_ids_not_on_order(name):
    base, experts = world(3)
    forward = merge(base, experts, name, ids=["a", "b", "c"])
    assert near(forward, merge(base, experts[::-1], name, ids=["c", "b", "a"]), 1e-5)
    assert not near(forward, merge(base, experts, name, ids=["c", "b", "a"]), 1e-3)
    assert not near(forward, merge(base, experts, name, ids=["a", "b", "c"], seed=1), 1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", ["base", "expert"])
def test_ema_is_the_fold_of_pair(name, start):
    base, experts = world()
    running, older = (base, None) if start == "base" else (experts[0], "1")
    for number in range(1 if start == "base" else 2, 5):
        ids = (older, str(number))
        running, older = pair(base, running, experts[number - 1], name, weight=0.3, ids=ids), None
    assert same(ema(base, experts, name, start=start, weight=0.3), running)


@pytest.mark.parametrize("name", [name for name in NAMES if TECHNIQUES[name].takes_weight])
def test_weight_is_the_share_of_the_newer(name):
    base, (older, newer, *_) = world()
    assert same(pair(base, older, newer, name, weight=0), older)
    assert same(pair(base, older, newer, name, weight=1), newer)
    assert same(pair(base, older, newer, name, weight=0.3), merge(base, [older, newer], name, weight=0.3))
    with pytest.raises(MergeError, match="share of the newer of two"):
        merge(base, [older, newer, older], name, weight=0.3)


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "breadcrumbs_ties", "dare", "dare_ties"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_nothing_and_of_everything(name, share):
    base, experts = world(2)
    params = {key: share for key in ("keep", "drop", "drop_low", "drop_high") if key in TECHNIQUES[name].parameters}
    merged = merge(base, experts, name, **params)
    assert all(value.isfinite().all() for value in merged.values())
    vectors = {key: merged[key] - base[key] for key in SHAPES if key != "logit_scale"}
    changed = sum(int((one != 0).sum()) for one in vectors.values())
    if share == (0 if name == "ties" else 1):
        assert changed <= 4  # ties keeps the largest element per expert and tower, as the original does
    else:
        assert changed == sum(one.numel() for one in vectors.values())


@pytest.mark.parametrize(("name", "params"), CASES)
def test_normalised_parameters_are_complete_and_stable(name, params):
    base, experts = world(2)
    full = normalise(name, params)
    assert normalise(name, full) == full
    assert same(merge(base, experts, name, **full), merge(base, experts, name, **params))
    whole = normalise(name, params, use="pair")
    assert normalise(name, whole, use="pair") == whole
    ids = (None, "x")
    assert same(pair(base, *experts, name, ids=ids, **whole), pair(base, *experts, name, ids=ids, **params))


def test_every_row_is_described():
    for name, row in TECHNIQUES.items():
        assert row.name == name
        assert row.rule
        assert row.state
        assert row.paper.startswith("https://")
        assert all(parameter.allowed for parameter in row.parameters.values())
