"""Random masks: the same everywhere, different for everything that names them, and fair."""

import os
import subprocess
import sys

import pytest
import torch

from time_ray.merging.masks import draws, keep_mask

SCRIPT = """
import hashlib, torch
from time_ray.merging import merge
base = {"a": torch.arange(40.0), "b": torch.arange(30.0).view(5, 6)}
experts = [{name: value + number for name, value in base.items()} for number in (1, 2, 3)]
merged = merge(base, experts, "dare_ties", ids=["x", "y", "z"])
print(hashlib.sha256(b"".join(bytes(v.reshape(-1).view(torch.uint8).tolist()) for v in merged.values())).hexdigest())
"""
LIKE = torch.zeros(0)


def test_the_generator_is_frozen():
    assert draws(("0", "1", "w"), 0, 4).tolist() == [-1577756295, 650952189, 585880297, -866038639]


@pytest.mark.nightly
def test_a_process_cannot_change_a_mask():
    seen = set()
    for seed in ("0", "31337"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


def test_any_cut_gives_the_same_draws():
    key = ("0", "1", "w")
    whole = draws(key, 0, 1000)
    parts = [draws(key, start, min(start + 37, 1000)) for start in range(0, 1000, 37)]
    assert torch.equal(whole, torch.cat(parts))
    far = (1 << 31) - 5
    assert torch.equal(draws(key, far, far + 10), torch.cat([draws(key, far + i, far + i + 1) for i in range(10)]))


@pytest.mark.parametrize("drop", [0.01, 0.3, 0.7, 0.99])
def test_masks_are_fair_and_independent(drop):
    count = 200_000
    keys = [("0", "1", "w"), ("1", "1", "w"), ("0", "2", "w"), ("0", "1", "v"), ("0", "1w", "")]
    masks = [keep_mask(key, 0, count, drop, LIKE) for key in keys]
    spread = 5 * (drop * (1 - drop) / count) ** 0.5
    for mask in masks:
        assert abs(mask.mean() - (1 - drop)) < spread
        assert abs((mask[1:] * mask[:-1]).mean() - (1 - drop) ** 2) < 2 * spread
    for mask in masks[1:]:
        assert abs((mask * masks[0]).mean() - (1 - drop) ** 2) < 2 * spread
