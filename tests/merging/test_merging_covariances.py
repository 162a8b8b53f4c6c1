"""Techniques that read the covariances of inputs from task vectors, against their rules and what their authors ran."""

import pytest
import torch
from merging_toys import toy_clip, vector

from time_ray.merging import merge


def matrices(*shape, count, seed=1):
    return [vector(shape[0] * shape[1], seed + i).view(shape) for i in range(count)]


def merged(vectors, technique, **params):
    """The merged task vector of one linear layer."""
    base = {"l.weight": torch.zeros_like(vectors[0])}
    return merge(base, [{"l.weight": one} for one in vectors], technique, **params)["l.weight"]


def loss_of_wudi(found, vectors):
    """The authors' loss: how much the merged vector disturbs each expert on the rows of its own."""
    stack = torch.stack(vectors).double()
    lengths = stack.flatten(1).norm(dim=1).square()
    return (((found - stack) @ stack.mT).square() / lengths[:, None, None]).sum()


def wudi_of_its_authors(vectors, steps=300, rate=1e-5):
    """They begin at the sum and take steps of Adam."""
    found = torch.stack(vectors).double().sum(dim=0).requires_grad_()
    optimizer = torch.optim.Adam([found], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of_wudi(found, vectors).backward()
        optimizer.step()
    return found.detach()


@pytest.mark.parametrize(("shape", "count"), [((7, 5), 3), ((4, 9), 3), ((4, 20), 2)])
def test_wudi_is_where_the_authors_descent_leads(shape, count):
    """The last shape has inputs that no expert tells anything of: what the sum says of them stays."""
    vectors = [0.3 * one for one in matrices(*shape, count=count)]
    found = merged(vectors, "wudi", ridge=1e-12).double().requires_grad_()
    loss = loss_of_wudi(found, vectors)
    loss.backward()
    assert found.grad.abs().max() < 1e-5
    assert loss <= loss_of_wudi(wudi_of_its_authors(vectors), vectors) + 1e-6
    optimizer = torch.optim.LBFGS([end := sum(vectors).double().requires_grad_()], max_iter=500, tolerance_grad=1e-12)

    def again():
        optimizer.zero_grad()
        value = loss_of_wudi(end, vectors)
        value.backward()
        return value

    optimizer.step(again)
    assert torch.allclose(found, end, atol=1e-3)


def test_wudi_in_closed_form():
    vectors = matrices(7, 5, count=3)
    covariances = [one.T @ one / one.norm() ** 2 for one in vectors]
    answers = sum(one @ cov for one, cov in zip(vectors, covariances, strict=True))
    assert torch.allclose(merged(vectors, "wudi"), answers @ torch.linalg.pinv(sum(covariances)), atol=1e-4)
    pulled = (answers + 3 * 0.1 * sum(vectors)) @ torch.linalg.inv(sum(covariances) + 3 * 0.1 * torch.eye(5))
    assert torch.allclose(merged(vectors, "wudi", ridge=0.1), pulled, atol=1e-5)


def test_wudi_gives_each_expert_its_own_inputs():
    """Experts of inputs that are orthogonal do not disturb each other: their sum answers to all."""
    inputs = torch.linalg.qr(vector(64, 1).view(8, 8)).Q
    vectors = [vector(18, seed).view(6, 3) @ inputs[3 * seed : 3 * seed + 3] for seed in (0, 1)]
    assert torch.allclose(merged(vectors, "wudi"), sum(vectors), atol=1e-5)


def ace_of_its_authors(vectors, eps=1e-2, share=0.3):
    """Their loop over the layers, with their names."""
    merged = {}
    for key in vectors[0]:
        ws = [one[key].double() for one in vectors]
        if ws[0].dim() != 2 or "text_projection" in key:
            merged[key] = torch.stack(ws).mean(dim=0)
            continue
        traces = torch.stack([torch.trace(w.T @ w) for w in ws])
        logs = torch.log(traces + 1e-12)
        flag = torch.var(logs) / (torch.mean(logs).pow(2) + 1e-12) > 0.3
        identity = torch.eye(ws[0].shape[1], dtype=torch.float64)
        sigmas, sigma_sum, w_sigma_sum = [], 0, 0
        for w in [w - w.mean(dim=0, keepdim=True) for w in ws]:
            sigma, eps_t = w.T @ w, eps
            if flag:
                trace = torch.trace(sigma) + 1e-12
                sigma, eps_t = sigma / trace, eps / trace
            sigmas.append(sigma)
            sigma = sigma + eps_t * identity
            w_sigma_sum, sigma_sum = w_sigma_sum + w @ sigma, sigma_sum + sigma
        c_agg = torch.mean(sum(sigmas), dim=0, keepdim=True)
        if flag:
            c_agg = c_agg / (traces.mean() + 1e-12)
        merged[key] = w_sigma_sum @ torch.linalg.inv(sigma_sum + c_agg)
        if flag:
            rest = sum(w @ (sigma - sigma_sum / len(ws)) for w, sigma in zip(ws, sigmas, strict=True))
            u, s, vh = torch.linalg.svd(rest + merged[key], full_matrices=False)
            k = int(len(s) * share)
            merged[key] = merged[key] + s[:k].mean() * (u[:, :k] @ vh[:k]) if k else merged[key]
    return merged


@pytest.mark.parametrize("lengths", [(0.5, 0.4, 0.6), (0.02, 1.0, 0.3)], ids=["even", "uneven"])
def test_ace_is_what_its_authors_ran(lengths):
    base = toy_clip(0)
    vectors = [{name: by * value for name, value in toy_clip(seed).items()} for seed, by in enumerate(lengths, 1)]
    experts = [{name: base[name] + one[name] for name in base} for one in vectors]
    found = merge(base, experts, "ace", scaling=0.9)
    exact = [{name: one[name] - base[name] for name in base} for one in experts]
    for name, wanted in ace_of_its_authors(exact).items():
        assert torch.allclose(found[name].double(), base[name] + 0.9 * wanted, rtol=0, atol=1e-5), name


def test_ace_in_closed_form():
    vectors = [one - one.mean(dim=0) for one in matrices(9, 5, count=3)]  # without a mean row
    covariances = [one.T @ one for one in vectors]
    answers = sum(one @ told for one, told in zip(vectors, covariances, strict=True))
    told = sum(covariances)
    wanted = answers @ torch.linalg.inv(told + told.mean(dim=0))
    assert torch.allclose(merged(vectors, "ace", ridge=1e-9), wanted, atol=1e-5)


def test_ace_leaves_experts_out_that_did_not_move():
    vectors, still = matrices(6, 5, count=2), torch.zeros(6, 5)
    assert torch.equal(merged([still, *vectors], "ace"), merged(vectors, "ace"))
    assert not merged([still, still], "ace").any()
