"""Results of elementwise techniques are frozen: who changes one raises the technique's version and freezes it anew."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from merging_toys import bits

from time_ray.merging import TECHNIQUES, merge
from time_ray.merging.declaration import holds

GOLDEN = Path(__file__).with_name("golden.json")
ELEMENTWISE = [name for name, row in TECHNIQUES.items() if holds(row.elementwise, row.fill({}))]


def sawtooth(size: int, step: int) -> torch.Tensor:
    """Numbers that any machine makes alike."""
    return ((torch.arange(size, dtype=torch.int64) * step) % 257 - 128).float() / 64


def digest(name: str) -> str:
    """The digest of a merge of four models."""
    base = {"visual.a": sawtooth(300, 3).view(20, 15), "b": sawtooth(211, 5)}
    experts = [
        {key: value + sawtooth(value.numel(), 7 * i).view(value.shape) / 8 for key, value in base.items()}
        for i in (1, 2, 3)
    ]
    return hashlib.sha256(b"".join(bits(value) for value in merge(base, experts, name).values())).hexdigest()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_results_move_only_with_their_version(name):
    assert json.loads(GOLDEN.read_text())[name] == {"version": TECHNIQUES[name].version, "sha256": digest(name)}


if __name__ == "__main__":
    frozen = {name: {"version": TECHNIQUES[name].version, "sha256": digest(name)} for name in ELEMENTWISE}
    GOLDEN.write_text(json.dumps(frozen, indent=2) + "\n")
