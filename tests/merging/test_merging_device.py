"""Merges on another device: nothing mixes devices, and the bits are those of the same arithmetic."""

from typing import Any

import pytest
import torch
from merging_toys import RULES
from pretended_device import DEVICE, There, pretended

from time_ray.merging import ema, fold, merge, pair
from time_ray.merging.engine import CHUNK
from time_ray.merging.masks import keep_mask

CASES = [
    pytest.param(row.name, params, marks=pytest.mark.nightly if params else ())
    for row in RULES.values()
    for params in ({}, *row.examples)
]


def model(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "visual.transformer.resblocks.0.attn.in_proj_weight": torch.randn(12, 4, generator=random),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": torch.randn(8, 4, generator=random),
        "transformer.resblocks.0.ln_1.bias": torch.randn(6, generator=random),
        "bn.running_var": torch.rand(6, generator=random),
        "bn.num_batches_tracked": torch.tensor(3 + seed),
        "logit_scale": torch.randn((), generator=random),
    }


BASE, EXPERTS = model(0), [model(seed) for seed in (1, 2, 3)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(type(one[name]) is torch.Tensor and torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda value: value if isinstance(value, str) else None)
def test_folds_and_merges_mix_no_devices(name: str, params: dict[str, Any]) -> None:
    expected = merge(BASE, EXPERTS, name, **params)
    assert same(merge(BASE, EXPERTS, name, device="cpu", **params), expected)
    with pretended() as there:
        assert same(merge(BASE, EXPERTS, name, device="cuda", **params), expected)
        running = fold(name, BASE, device="cuda", **params)
        for number, expert in enumerate(EXPERTS, 1):
            running.add(expert, id=str(number))
            assert all(type(values) is torch.Tensor for state in running.states for values in state or ())
        assert same(running.result(), expected)
        running.move_to("cpu")
        assert same(running.result(), expected)
    assert sum(there.calls.values()) > there.calls["_to_copy"] > 0


@pytest.mark.parametrize("name", [row.name for row in RULES.values()])
def test_running_merges_mix_no_devices(name: str) -> None:
    ids = ("a", "b")
    expected = pair(BASE, EXPERTS[0], EXPERTS[1], name, ids=ids), ema(BASE, EXPERTS, name)
    with pretended():
        assert same(pair(BASE, EXPERTS[0], EXPERTS[1], name, ids=ids, device="cuda"), expected[0])
        assert same(ema(BASE, EXPERTS, name, device="cuda"), expected[1])


def test_the_device_that_is_pretended_refuses_others_tensors() -> None:
    with pretended():
        there = torch.ones(3).to(DEVICE)
        assert isinstance(there, There)
        assert there.device == DEVICE
        assert (there * 2).cpu().tolist() == [2, 2, 2]
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        there[:2] = torch.zeros(2)  # an explicit copy
        assert there.sum().item() == 1


def test_masks_are_the_same_on_every_device() -> None:
    key, size = ("1", "expert", "w"), CHUNK // 64
    here = keep_mask(key, 5, 5 + size, 0.3, torch.empty(size))
    with pretended() as there:
        mask = keep_mask(key, 5, 5 + size, 0.3, torch.empty(size, device=DEVICE))
        assert isinstance(mask, There)
        assert torch.equal(mask.cpu(), here)
    assert there.calls["arange"] == 1
