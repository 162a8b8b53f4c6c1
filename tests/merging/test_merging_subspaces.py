"""Techniques that give each expert a subspace of its own, against their rules and what their authors ran."""

import pytest
import torch
from merging_toys import toy_clip, vector

from time_ray.merging import ema, fold, merge, pair
from time_ray.merging.iso_cts import shares


def is_decomposed(name, value):
    """The authors decompose every 2-D tensor but the text projection."""
    return value.dim() == 2 and "text_projection" not in name


def experts_of(base, vectors):
    return [{name: base[name] + one[name] for name in base} for one in vectors]


def matrices(*shape, count, seed=1):
    return [vector(shape[0] * shape[1], seed + i).view(shape) for i in range(count)]


def merged(vectors, technique, **params):
    """The merged task vector of one linear layer."""
    base = {"l.weight": torch.zeros_like(vectors[0])}
    return merge(base, [{"l.weight": one} for one in vectors], technique, **params)["l.weight"]


def polar(matrix):
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


def tsv_m_of_its_authors(vectors):
    """They keep int(r · 1 / N) singular vectors of each task, side by side in matrices of full rank."""
    kept = {}
    for key, first in vectors[0].items():
        kept[key] = sum(one[key] for one in vectors) / len(vectors)
        if is_decomposed(key, first):
            share = int(min(first.shape) * (1 / len(vectors)))
            u, s, vh = torch.linalg.svd(torch.zeros_like(first), full_matrices=False)
            u, s, vh = torch.zeros_like(u), torch.zeros_like(s), torch.zeros_like(vh)
            for i, one in enumerate(vectors):
                own, place = torch.linalg.svd(one[key], full_matrices=False), slice(i * share, (i + 1) * share)
                u[:, place], s[place], vh[place] = own.U[:, :share], own.S[:share], own.Vh[:share]
            kept[key] = torch.linalg.multi_dot((polar(u), torch.diag(s), polar(vh)))
    return kept


@pytest.mark.parametrize("scaling", [1.0, 0.7])
def test_tsv_m_is_what_its_authors_ran(scaling):
    base, vectors = toy_clip(0), [toy_clip(seed) for seed in (1, 2)]
    found = merge(base, experts_of(base, vectors), "tsv_m", scaling=scaling)
    for name, wanted in tsv_m_of_its_authors(vectors).items():
        assert torch.allclose(found[name], base[name] + scaling * wanted, rtol=0, atol=1e-5), name


def test_tsv_m_adds_experts_that_do_not_meet():
    """Rank-one vectors in orthogonal directions are merged into their sum, whatever their number."""
    left, right = torch.linalg.qr(vector(36, 1).view(6, 6)).Q, torch.linalg.qr(vector(25, 2).view(5, 5)).Q
    vectors = [(i + 1) * torch.outer(left[:, i], right[:, i]) for i in range(4)]
    assert torch.allclose(merged(vectors, "tsv_m"), sum(vectors), atol=1e-5)
    assert torch.allclose(merged(vectors[:1], "tsv_m"), vectors[0], atol=1e-6)


def test_tsv_m_of_copies_is_their_main_part():
    one = vector(40, 1).view(8, 5)
    u, s, vh = torch.linalg.svd(one, full_matrices=False)
    assert torch.allclose(merged([one, one], "tsv_m"), (u[:, :2] * s[:2]) @ vh[:2], atol=1e-5)


def test_tsv_m_gives_no_rank_to_experts_that_did_not_move():
    first, second = matrices(8, 6, count=2)
    still = torch.zeros(8, 6)
    assert torch.equal(merged([still, first, still, second], "tsv_m"), merged([first, second], "tsv_m"))
    base = {"l.weight": still}
    step = pair(base, base, {"l.weight": first}, "tsv_m", ids=(None, "newer"))
    assert torch.allclose(step["l.weight"], first, atol=1e-5)


def test_tsv_m_gives_each_expert_a_direction_where_experts_outnumber_them():
    vectors = matrices(4, 3, count=5)
    leading = [torch.linalg.svd(one, full_matrices=False) for one in vectors]
    u, v = torch.stack([one.U[:, 0] for one in leading], 1), torch.stack([one.Vh[0] for one in leading])
    wanted = (polar(u) * torch.stack([one.S[0] for one in leading])) @ polar(v)
    assert torch.allclose(merged(vectors, "tsv_m"), wanted, atol=1e-5)


def test_tsv_m_remembers_about_two_models_however_many_experts():
    base = {"l.weight": torch.zeros(40, 40)}
    running = fold("tsv_m", base)
    for one in matrices(40, 40, count=9):
        running.add({"l.weight": one})
        assert running.num_bytes <= 2.1 * base["l.weight"].nbytes


def iso_cts_of_its_authors(vectors, common):
    """Theirs: task directions first, then the common ones; the order does not matter."""
    merged, count = {}, len(vectors)
    for key, first in vectors[0].items():
        merged[key] = sum(one[key] for one in vectors) / count
        if not is_decomposed(key, first):
            continue
        rank = min(first.shape)
        own = round((rank - int(rank * common)) / count) * count
        shared = rank - own
        u, s, vh = torch.linalg.svd(merged[key] * count, full_matrices=False)
        u, s, vh = u[:, :shared], s[:shared], vh[:shared]
        sides = [u], [s], [vh]
        for one in vectors:
            rest = torch.linalg.svd(one[key] - u @ u.T @ one[key], full_matrices=False)
            main = slice(own // count)
            for side, part in zip(sides, (rest.U[:, main], rest.S[main], rest.Vh[main]), strict=True):
                side.append(part)
        length = torch.cat(sides[1]).mean()
        merged[key] = polar(torch.cat(sides[0], 1)) * length @ polar(torch.cat(sides[2]))
    return merged


@pytest.mark.parametrize("common", [0.8, 0.4, 1.0])
def test_iso_cts_is_what_its_authors_ran(common):
    base, vectors = toy_clip(0), [toy_clip(seed) for seed in (1, 2)]
    found = merge(base, experts_of(base, vectors), "iso_cts", common=common, scaling=1.3)
    for name, wanted in iso_cts_of_its_authors(vectors, common).items():
        assert torch.allclose(found[name], base[name] + 1.3 * wanted, rtol=0, atol=3e-5), name


def test_iso_cts_without_directions_of_experts_is_iso_c():
    vectors = matrices(9, 6, count=3)
    assert torch.allclose(merged(vectors, "iso_cts", common=1.0), merged(vectors, "iso_c"), atol=1e-5)


def test_iso_cts_keeps_what_one_expert_alone_knows():
    """In Iso-C the expert with the shortest vector has as much as the others, in iso_cts as many directions."""
    axes = torch.eye(6)
    strong = [(5.0 - i) * torch.outer(axes[i], axes[i]) for i in range(4)]
    vectors = [sum(strong[:2]), sum(strong[2:]) + 1e-3 * torch.outer(axes[4], axes[4])]
    found = merged(vectors, "iso_cts", common=0.67)
    assert found[4, 4] == pytest.approx(found[0, 0])
    assert found[0, 0] == pytest.approx((5 + 4 + 3 + 2 + 1e-3) / 6)


@pytest.mark.parametrize(
    ("rank", "experts", "common", "expected"),
    [(768, 20, 0.8, (608, 8)), (768, 8, 0.8, (616, 19)), (8, 3, 0.0, (2, 2)), (2, 5, 0.8, (2, 0)), (5, 2, 1.0, (5, 0))],
)
def test_shares_of_iso_cts_use_every_direction(rank, experts, common, expected):
    found = shares(rank, experts, common)
    assert found == expected
    assert found[0] + experts * found[1] == rank


def null_space_of_its_authors(vectors, rank):
    """Their layers without adapters: W + τ (I − V Vᵀ), V of what was merged before; the first is added whole here."""
    total = vectors[0].clone()
    for one in vectors[1:]:
        known = torch.linalg.svd(total, full_matrices=False).Vh.T[:, :rank]
        total = total + one @ (torch.eye(one.shape[1]) - known @ known.T)
    return total


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
@pytest.mark.parametrize(("rank", "count"), [(0.25, 2), (0.5, 4), (0.0, 0)])
def test_null_space_is_what_its_authors_ran(shape, rank, count):
    vectors = matrices(*shape, count=3)
    wanted = null_space_of_its_authors(vectors, count)
    assert torch.allclose(merged(vectors, "null_space", rank=rank), wanted, atol=1e-4)


def test_null_space_leaves_the_answers_to_earlier_inputs_as_they_were():
    first = torch.outer(vector(6, 1), vector(5, 2))
    second = vector(30, 3).view(6, 5)
    found, known = merged([first, second], "null_space", rank=0.2), vector(5, 2)
    assert torch.allclose(found @ known, first @ known, atol=1e-4)
    other = torch.linalg.qr(torch.stack((known, vector(5, 4)), 1)).Q[:, 1]
    assert torch.allclose(found @ other, second @ other, atol=1e-4)


def test_null_space_takes_query_key_and_value_apart_and_averages_what_is_no_linear_layer():
    fused = "x.attn.in_proj_weight"
    base = {fused: torch.zeros(9, 5), "ln.bias": torch.zeros(5), "visual.proj": torch.zeros(4, 4)}
    experts = [{key: vector(value.numel(), s).view(value.shape) for key, value in base.items()} for s in (1, 2)]
    found = merge(base, experts, "null_space", rank=0.5, scaling=0.5)
    thirds = zip(*(one[fused].view(3, 3, 5) for one in experts), strict=True)
    parts = torch.cat([null_space_of_its_authors(pair_of, 2) for pair_of in thirds])
    assert torch.allclose(found[fused], 0.5 * parts, atol=1e-4)
    for name in ("ln.bias", "visual.proj"):
        assert torch.allclose(found[name], (experts[0][name] + experts[1][name]) / 4, atol=1e-6)


@pytest.mark.parametrize("start", ["base", "expert"])
def test_a_running_null_space_is_the_null_space_of_all(start):
    base = {"l.weight": torch.zeros(8, 6)}
    experts = [{"l.weight": one} for one in matrices(8, 6, count=4)]
    running = ema(base, experts, "null_space", start=start, rank=0.5)
    assert torch.allclose(running["l.weight"], merge(base, experts, "null_space", rank=0.5)["l.weight"], atol=1e-4)
