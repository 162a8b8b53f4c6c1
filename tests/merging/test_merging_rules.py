"""Every technique against its rule written naively, over the stacked vectors of one tower."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merging_toys import toy_clip, vector

from time_ray.merging import TECHNIQUES, MergeError, merge, pair, toy_models
from time_ray.merging.declaration import holds
from time_ray.merging.masks import keep_mask

SPLIT = (7, 5)
SIZE = 7 * 5 + 20


def as_model(flat):
    return {"a": flat[:35].view(SPLIT).clone(), "b": flat[35:].clone()}


def as_vector(model):
    return torch.cat([model["a"].reshape(-1), model["b"].reshape(-1)])


def merged(base, experts, technique, **params):
    return as_vector(merge(as_model(base), [as_model(expert) for expert in experts], technique, **params))


def world(count=4, size=SIZE):
    base = vector(size, 0)
    return base, torch.stack([base + 0.1 * vector(size, seed) for seed in range(1, count + 1)])


def elect(sparse, aggregate="mean"):
    """TIES after the trim, as its authors wrote it."""
    signs = sparse.sum(0).sign()
    signs[signs == 0] = signs.sum().sign()
    agree = torch.where(signs > 0, sparse > 0, sparse < 0)
    kept = sparse * agree
    if aggregate == "sum":
        return kept.sum(0)
    if aggregate == "max":
        return kept.abs().max(0).values * signs
    return kept.sum(0) / (kept != 0).sum(0).clamp(min=1)


def largest(vectors, keep):
    d = vectors.shape[1]
    if int(d * keep) == d:
        return vectors
    threshold = vectors.abs().sort(dim=1).values[:, d - int(d * keep) - 1]
    return vectors * (vectors.abs() >= threshold[:, None])


def middle(vectors, low, high):
    d = vectors.shape[1]
    ranks = vectors.abs().sort(dim=1).values
    first, last = ranks[:, int(low * d)], ranks[:, d - int(high * d) - 1]
    return vectors * ((vectors.abs() >= first[:, None]) & (vectors.abs() <= last[:, None]))


def masked(vectors, drop, seed):
    kept = []
    for number, one in enumerate(vectors, 1):
        parts = (("a", one[:35]), ("b", one[35:]))
        kept.append(torch.cat([x * keep_mask((str(seed), str(number), n), 0, len(x), drop, x) for n, x in parts]))
    return torch.stack(kept) / (1 - drop)


def test_average_is_the_mean():
    base, experts = world()
    assert torch.equal(merged(base, experts, "average"), sum(experts[1:], experts[0].clone()) / 4)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("linear", lambda i: i),
        ("sqrt", math.sqrt),
        ("quadratic", lambda i: i**2),
        ("cubic", lambda i: i**3),
        ("fifth", lambda i: i**5),
        ("tenth", lambda i: i**10),
        ("exp", lambda i: 2 ** (i - 1)),
        ("log", lambda i: math.log(i + 1)),
    ],
)
def test_schedules_weigh_by_recency(name, weight):
    base, experts = world(6)
    shares = torch.tensor([weight(i) for i in range(1, 7)])
    expected = (shares[:, None] * experts).sum(0) / shares.sum()
    backwards = (shares.flip(0)[:, None] * experts).sum(0) / shares.sum()
    assert torch.allclose(merged(base, experts, "average", weights=name), expected, atol=1e-6)
    assert torch.allclose(merged(base, experts, "average", weights=f"reverse_{name}"), backwards, atol=1e-6)


def test_long_streams_do_not_overflow_their_schedule():
    base = torch.zeros(3)
    experts = [torch.full((3,), float(i)) for i in range(1, 301)]
    for name, expected in (("exp", 299.0), ("reverse_exp", 2.0)):
        result = merge({"w": base}, [{"w": expert} for expert in experts], "average", weights=name)
        assert torch.allclose(result["w"], torch.full((3,), expected))


def test_listed_weights_are_normalised_and_counted():
    base, experts = world(2)
    assert torch.allclose(merged(base, experts, "average", weights=[1, 3]), experts[0] * 0.25 + experts[1] * 0.75)
    with pytest.raises(MergeError, match="2 weights for 4 experts"):
        merged(*world(4), "average", weights=[1, 3])


def test_weights_and_scalings_by_layer():
    base = {"visual.a": vector(6, 0), "visual.b": vector(6, 1), "c": vector(6, 2)}
    experts = [{name: value + vector(6, 10 * i) for name, value in base.items()} for i in (1, 2)]
    shares = {"visual.a": [1, 3], "*.b": [1, 0], "*": None}
    found = merge(base, experts, "average", weights=shares)
    assert torch.allclose(found["visual.a"], 0.25 * experts[0]["visual.a"] + 0.75 * experts[1]["visual.a"])
    assert torch.equal(found["visual.b"], experts[0]["visual.b"])
    assert torch.allclose(found["c"], (experts[0]["c"] + experts[1]["c"]) / 2)
    moved = merge(base, experts, "task_arithmetic", scaling={"visual.a": 0.0, "visual.*": 0.3, "*": None})
    total = {name: experts[0][name] + experts[1][name] - 2 * base[name] for name in base}
    assert torch.equal(moved["visual.a"], base["visual.a"])
    assert torch.allclose(moved["visual.b"], base["visual.b"] + 0.3 * total["visual.b"])
    assert torch.allclose(moved["c"], base["c"] + 0.5 * total["c"])
    with pytest.raises(
        MergeError, match=r"scaling is \{'visual\.\*': 0\.3\}; give a number, .*'\*': the value of all other"
    ):
        merge(base, experts, "ties", scaling={"visual.*": 0.3})
    with pytest.raises(MergeError, match="average: 3 weights for 2 experts"):
        merge(base, experts, "average", weights={"c": [1, 0, 0], "*": [1, 0]})


def test_task_arithmetic():
    base, experts = world()
    vectors = experts - base
    total = vectors[0] + vectors[1] + vectors[2] + vectors[3]
    assert torch.equal(merged(base, experts, "task_arithmetic", scaling=0.3), base + 0.3 * total)
    assert torch.equal(merged(base, experts, "task_arithmetic"), base + 0.25 * total)
    normed = base + total * vectors.norm(dim=1).mean() / total.norm()
    assert torch.allclose(merged(base, experts, "task_arithmetic", keep_norm=True), normed, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.2, 0.5, 0.99, 1.0])
def test_ties(aggregate, keep):
    base, experts = world()
    expected = base + 0.7 * elect(largest(experts - base, keep), aggregate)
    assert torch.allclose(
        merged(base, experts, "ties", keep=keep, aggregate=aggregate, scaling=0.7), expected, atol=1e-7
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=SIZE, max_size=SIZE), min_size=1, max_size=4), st.floats(0, 1))
def test_ties_breaks_cancelled_votes_by_the_majority(rows, keep):
    base, vectors = torch.zeros(SIZE), torch.tensor(rows, dtype=torch.float32)
    for aggregate in ("mean", "sum", "max"):
        expected = elect(largest(vectors, keep), aggregate)
        assert torch.allclose(merged(base, vectors, "ties", keep=keep, aggregate=aggregate), expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=SIZE, max_size=SIZE), st.floats(0, 1))
def test_exact_k_keeps_exactly_k_first_come(row, keep):
    one = torch.tensor(row, dtype=torch.float32)
    kept = int(keep * SIZE)
    order = sorted(range(SIZE), key=lambda i: (-abs(row[i]), i))[:kept]
    expected = torch.zeros(SIZE)
    expected[order] = one[order]
    assert torch.equal(merged(torch.zeros(SIZE), one[None], "ties", keep=keep, exact_k=True), expected)


def test_scopes_of_thresholds():
    parts = {"visual.a": vector(40, 1), "visual.b": 9 * vector(40, 2), "c": 3 * vector(40, 3)}
    base = {name: torch.zeros(40) for name in parts}
    groups = {"tower": [["visual.a", "visual.b"], ["c"]], "model": [list(parts)], "tensor": [[name] for name in parts]}
    for scope, names in groups.items():
        result = merge(base, [parts], "ties", scope=scope, keep=0.3)
        for group in names:
            expected = largest(torch.cat([parts[name] for name in group])[None], 0.3)[0]
            assert torch.equal(torch.cat([result[name] for name in group]), expected)


@pytest.mark.parametrize(("low", "high"), [(0.7, 0.01), (0.2, 0.2), (0.0, 0.0), (0.5, 0.3)])
def test_breadcrumbs(low, high):
    base, experts = world()
    sparse = middle(experts - base, low, high)
    params = {"drop_low": low, "drop_high": high}
    assert torch.allclose(merged(base, experts, "breadcrumbs", **params), base + sparse.sum(0) / 4, atol=1e-7)
    assert torch.allclose(merged(base, experts, "breadcrumbs_ties", **params), base + elect(sparse), atol=1e-7)


def test_breadcrumbs_by_row():
    rows = vector(60, 1).view(3, 20)
    result = merge({"w": torch.zeros(3, 20)}, [{"w": rows}], "breadcrumbs", scope="row", drop_low=0.5, drop_high=0.1)
    assert torch.equal(result["w"], middle(rows, 0.5, 0.1))
    assert (result["w"] != 0).sum(1).tolist() == [8, 8, 8]


def test_dare_drops_once_per_expert_and_rescales():
    base, experts = world()
    sparse = masked(experts - base, 0.6, 5)
    assert torch.allclose(merged(base, experts, "dare", drop=0.6, seed=5), base + sparse.sum(0) / 4, atol=1e-6)
    assert torch.allclose(merged(base, experts, "dare_ties", drop=0.6, seed=5), base + elect(sparse), atol=1e-6)


@pytest.mark.parametrize("name", ["ties", "breadcrumbs", "breadcrumbs_ties", "dare", "dare_ties"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_nothing_and_of_everything(name, share):
    base, experts = world(2)
    params = {key: share for key in ("keep", "drop", "drop_low", "drop_high") if key in TECHNIQUES[name].parameters}
    changed = int((merged(base, experts, name, **params) != base).sum())
    if share == (0 if name == "ties" else 1):
        assert changed <= 2  # ties keeps the largest element per expert and tower, as the original does
    else:
        assert changed == SIZE


def test_magmax_takes_the_largest_and_of_equals_the_later():
    base, experts = world()
    vectors = experts - base
    picked = vectors.gather(0, vectors.abs().argmax(0)[None])[0]
    assert torch.equal(merged(base, experts, "magmax", scaling=0.5), base + 0.5 * picked)
    ones = torch.ones(2, SIZE) * torch.tensor([[-1.0], [1.0]])
    assert torch.equal(merged(torch.zeros(SIZE), ones, "magmax"), ones[1])


def test_consensus():
    base, experts = world()
    vectors = experts - base
    total = vectors.sum(0)
    votes = (vectors.abs() > 0.4 * (total - vectors).abs()).sum(0)
    assert torch.allclose(merged(base, experts, "consensus", scaling=1.0), base + total * (votes >= 2), atol=1e-6)
    assert torch.allclose(merged(base, experts, "consensus", min_agree=0), base + total / 4, atol=1e-6)


def test_slerp_turns_each_tensor():
    older, newer = vector(40, 1), vector(40, 2)
    angle = torch.acos(torch.dot(older, newer) / older.norm() / newer.norm())
    expected = (torch.sin(0.7 * angle) * older + torch.sin(0.3 * angle) * newer) / torch.sin(angle)
    base = {"w": torch.zeros(40)}
    assert torch.allclose(merge(base, [{"w": older}, {"w": newer}], "slerp", weight=0.3)["w"], expected, atol=1e-6)
    close = older + 1e-3 * newer
    line = 0.7 * older + 0.3 * close
    assert torch.allclose(merge(base, [{"w": older}, {"w": close}], "slerp", weight=0.3)["w"], line, atol=1e-6)


def test_model_stock_uses_the_mean_of_pairwise_cosines():
    base, experts = world(3)
    expected = []
    for part in (slice(0, 35), slice(35, None)):
        vectors = (experts - base)[:, part] + 0.05
        units = vectors / vectors.norm(dim=1, keepdim=True)
        cosine = float((units @ units.T).triu(1).sum() / 3)
        ratio = 3 * cosine / (1 + 2 * cosine)
        expected.append(base[part] + ratio * vectors.mean(0))
    assert torch.allclose(merged(base, experts + 0.05, "model_stock"), torch.cat(expected), atol=1e-6)


def test_model_stock_never_leaves_the_segment():
    base = {"w": torch.zeros(2), "logit_scale": torch.tensor(4.0)}
    experts = [{"w": torch.tensor([x, 0.0]), "logit_scale": torch.tensor(4 + x)} for x in (1.0, -1.0)]
    result = merge(base, experts, "model_stock")
    assert torch.equal(result["w"], base["w"])
    assert result["logit_scale"] == 4


def isotropic(matrix):
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return s.mean() * u @ v


def iso_c_of_its_authors(vectors):
    """Their loop over the state dict: every 2-D tensor but the text projection, fused projections whole."""
    merged = {}
    for key in vectors[0]:
        merged[key] = sum(one[key] for one in vectors) / len(vectors)
        if merged[key].dim() == 2 and "text_projection" not in key:
            u, s, v = torch.linalg.svd(merged[key] * len(vectors), full_matrices=False)
            merged[key] = torch.linalg.multi_dot((u, torch.diag(torch.ones_like(s) * s.mean()), v))
    return merged


@pytest.mark.parametrize("scaling", [1.0, 1.3])
def test_iso_c_is_what_its_authors_ran(scaling):
    base, vectors = toy_clip(0), [toy_clip(seed) for seed in (1, 2, 3)]
    result = merge(base, [{k: base[k] + one[k] for k in base} for one in vectors], "iso_c", scaling=scaling)
    for name, wanted in iso_c_of_its_authors(vectors).items():
        assert torch.allclose(result[name], base[name] + scaling * wanted, rtol=0, atol=1e-5), name


def test_iso_c_of_linear_layers_takes_query_key_and_value_apart():
    name, fused = "x.mlp.weight", "x.attn.in_proj_weight"
    base = {name: torch.zeros(6, 4), fused: torch.zeros(9, 5), "visual.proj": torch.zeros(4, 4)}
    experts = [{key: vector(value.numel(), s).view(value.shape) for key, value in base.items()} for s in (1, 2)]
    result = merge(base, experts, "iso_c", scaling=1.5, matrices="linear")
    total = {key: experts[0][key] + experts[1][key] for key in base}
    parts = torch.cat([isotropic(part) for part in total[fused].view(3, 3, 5)])
    assert torch.allclose(result[name], 1.5 * isotropic(total[name]), atol=1e-5)
    assert torch.allclose(result[fused], 1.5 * parts, atol=1e-5)
    assert torch.allclose(result["visual.proj"], 1.5 * total["visual.proj"] / 2, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_opcm_projects_as_its_authors_do(shape):
    first, second = vector(math.prod(shape), 1).view(shape), vector(math.prod(shape), 2).view(shape)
    u, s, v = torch.linalg.svd(first, full_matrices=True)
    rank = int((s.cumsum(0) / s.sum() > 0.5).float().argmax())
    p = u.T @ second @ v.T
    p.fill_diagonal_(0)
    p[:rank, :rank] = 0
    total = first + u @ p @ v
    expected = total * (first.norm() + second.norm()) / 2 / total.norm()
    base = {"l.weight": torch.zeros(shape)}
    result = merge(base, [{"l.weight": first}, {"l.weight": second}], "opcm")
    assert torch.allclose(result["l.weight"], expected, atol=1e-5)


def test_opcm_takes_a_vector_whole_where_nothing_is_merged_yet():
    """The first step of a running merge begins at the base; a layer may have been frozen for all tasks before."""
    base = {"a.weight": torch.zeros(5, 5), "b.weight": torch.zeros(5, 5)}
    frozen = {"a.weight": vector(25, 1).view(5, 5), "b.weight": torch.zeros(5, 5)}
    newer = {"a.weight": torch.zeros(5, 5), "b.weight": vector(25, 2).view(5, 5)}
    lengths = frozen["a.weight"].norm(), newer["b.weight"].norm()
    ratio = (lengths[0] + lengths[1]) / 2 / (lengths[0] ** 2 + lengths[1] ** 2).sqrt()
    result = merge(base, [frozen, newer], "opcm")
    assert torch.allclose(result["b.weight"], newer["b.weight"] * ratio, atol=1e-6)
    step = pair(base, base, newer, "opcm", ids=(None, "newer"))  # a running merge at the base is no expert yet
    assert torch.allclose(step["b.weight"], newer["b.weight"], atol=1e-6)


def test_lines_scales_by_depth_per_tower():
    blocks = [f"visual.transformer.resblocks.{i}.w" for i in range(5)] + [
        f"transformer.resblocks.{i}.w" for i in (0, 1, 2)
    ]
    names = ["visual.conv1.weight", *blocks, "visual.ln_post.weight", "text_projection", "token_embedding.weight"]
    base = {name: torch.zeros(2) for name in names}
    expert = {name: torch.ones(2) for name in names}

    def factors(**lines):
        result = merge(base, [expert], "task_arithmetic", lines={"alpha": 0.25, "beta": 0.5, **lines})
        return [result[name][0].item() for name in names]

    depth = [0.25, 0.375, 0.5, 0.625, 0.75, 0.25, 0.5, 0.75]
    assert factors() == [0.25, *depth, 0.75, 0.75, 0.25]
    assert factors(tail="alpha") == [0.25, *depth, 0.25, 0.25, 0.25]
    quadratic = [0.25, 0.28125, 0.375, 0.53125, 0.75, 0.25, 0.375, 0.75]
    assert factors(curve="quadratic") == [0.25, *quadratic, 0.75, 0.75, 0.25]


@pytest.mark.parametrize(
    ("technique", "params", "merge_vectors"),
    [
        ("task_arithmetic", {}, lambda v: v.sum(0)),
        ("ties", {"keep": 0.3}, lambda v: elect(largest(v, 0.3))),
        ("ties", {"keep": 1.0, "aggregate": "sum"}, lambda v: elect(v, "sum")),
        ("magmax", {}, lambda v: v.flip(0).gather(0, v.flip(0).abs().argmax(0)[None])[0]),  # of equals the later
        ("consensus", {}, lambda v: v.sum(0) * ((v.abs() > 0.4 * (v.sum(0) - v).abs()).sum(0) >= 2)),
    ],
)
def test_lines_without_alpha_has_the_authors_ratio_of_norms(technique, params, merge_vectors):
    base, experts = world()
    experts = experts.mul(8).round()  # votes that cancel, so that the majority decides
    base = base.mul(8).round()
    vectors = experts - base
    merged_vector = merge_vectors(vectors)
    alpha = vectors.sum(0).abs().sum() / merged_vector.abs().sum() / len(vectors)
    blocks = ["visual.transformer.resblocks.0.w", "visual.transformer.resblocks.1.w"]

    def model(flat):
        return {blocks[0]: flat[:35].clone(), blocks[1]: flat[35:].clone()}

    found = merge(model(base), [model(one) for one in experts], technique, lines={"beta": 0.7}, **params)
    first, second = base + alpha * merged_vector, base + (alpha + 0.7) * merged_vector
    assert torch.allclose(found[blocks[0]], first[:35], atol=1e-4)
    assert torch.allclose(found[blocks[1]], second[35:], atol=1e-4)
    if technique == "task_arithmetic":
        assert alpha == pytest.approx(1 / 4)


def test_lines_without_alpha_needs_a_norm_that_is_not_set():
    with pytest.raises(MergeError, match="keep_norm sets the norm that an alpha of null is found from; give lines an"):
        merged(*world(), "task_arithmetic", keep_norm=True, lines={})


@pytest.mark.parametrize(
    "technique",
    ["slerp", "karcher", "model_stock", "opcm", "iso_c", "null_space", "wudi", "dare", "dare_ties", "della"],
)
def test_scalars_are_averaged_where_they_have_no_direction(technique):
    base = {"logit_scale": torch.tensor(4.0), "w": vector(12, 0)}
    experts = [{"logit_scale": torch.tensor(4.0 + x), "w": vector(12, 9)} for x in (0.5, -1.0)]
    assert merge(base, experts, technique)["logit_scale"] == 3.75


@pytest.mark.parametrize("name", [name for name, row in TECHNIQUES.items() if not row.needs_moments])
def test_all_but_those_that_need_agreement_leave_the_base(name):
    """As a running merge does that begins with it: with the defaults."""
    base, (expert, *_) = toy_models.world()
    found = pair(base, base, expert, name, ids=(None, "a"))
    stays = all(torch.equal(found[key], base[key]) for key in base if base[key].dim())
    row = TECHNIQUES[name]
    assert stays == holds(row.needs_agreement, row.fill({}))
