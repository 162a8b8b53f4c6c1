"""Without a GPU: a training step mixes no devices, and waits for none. The device `meta` stands for one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from time_ray.clip import features, loss, optimizer
from time_ray.clip.loss import ContrastiveStep
from time_ray.clip.models import Clip, outline
from time_ray.clip.optimizer import Optimizer
from time_ray.clip.preprocessing import resolve
from time_ray.core.model import ModelSpec
from time_ray.core.training import Training

USUAL, OTHERS = ("ViT-B-32", "ViTamin-S"), ("RN50-quickgelu", "MobileCLIP-B", "MobileCLIP2-S0", "EVA02-B-16")
THERE = "meta"
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten._copy_from.default}
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default}


class Operations(TorchDispatchMode):
    """Notes what no operation may do: take tensors of both devices, carry one over and wait, or read one."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.carrying = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if func in READS and any(tensor.device.type == THERE for tensor in taken):
            self.faults.append(f"{func} reads a tensor there")
        devices = {tensor.device.type for tensor in (*taken, *made) if tensor.ndim or func in COPIES}
        if len(devices) > 1 and not (func in COPIES and self.carrying):
            self.faults.append(f"{func} has tensors of both devices")
        return out


class Makers(TorchFunctionMode):
    """Notes tensors that are made there of Python's numbers: they are carried over, and waited for."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__()
        self._faults = faults

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and str(kwargs.get("device", "cpu")).startswith(THERE):
            self._faults.append(f"{func.__name__} makes a tensor there")
        return func(*args, **kwargs)


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is wrong with operations in the block, as they go."""
    operations = Operations()

    def carried(tensor: Tensor, _: torch.device) -> Tensor:
        operations.carrying = True
        try:
            return tensor.to(THERE)
        finally:
            operations.carrying = False

    monkeypatch.setattr(features, "to_device", carried)
    monkeypatch.setattr(loss, "to_device", carried)
    with operations, Makers(operations.faults):
        yield operations.faults


def step_of(name: str, *, accumulate: int = 1, recompute: bool = False) -> Callable[[], None]:
    """A training step of an architecture that lies there."""
    module = outline(name).train()
    preprocessing = resolve(ModelSpec(name=name)).preprocessing
    clip = Clip(name, module, open_clip.get_tokenizer(name), preprocessing)
    config, device = Training(lr=1e-3, clip_norm=1.0, max_logit_scale=100.0), torch.device("cuda")
    adam_w = Optimizer(module, config, steps=3, device=device)
    whole = ContrastiveStep(clip, config, device=device, accumulate=accumulate, recompute=recompute, seed=0)
    size = preprocessing.resizing.size
    images, texts = torch.zeros(4, 3, size, size, dtype=torch.uint8), ["a cat", "an owl", "a dog of some kind", "x"]

    def step() -> None:
        whole.backward(0, images, texts, adam_w.scaled)
        adam_w.step(0)

    return step


@pytest.fixture(autouse=True)
def _not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused optimiser knows no device without memory."""
    monkeypatch.setattr(optimizer.torch.optim, "AdamW", _unfused)


def _unfused(groups: Any, *, fused: bool, **settings: Any) -> torch.optim.Optimizer:
    assert fused
    return torch.optim.Adam(groups, decoupled_weight_decay=True, foreach=True, **settings)


@pytest.mark.parametrize("name", [*USUAL, *(pytest.param(name, marks=pytest.mark.nightly) for name in OTHERS)])
def test_a_step_mixes_no_devices_and_waits_for_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_of(name)
    with watched(monkeypatch):
        step()  # what is made once is made
    with watched(monkeypatch) as faults:
        step()
    assert faults == []


def test_what_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = torch.ones(3), torch.ones(3, device=THERE)
    wrong = {
        "has tensors of both devices": partial(here.to, THERE),
        "makes a tensor there": partial(torch.tensor, [1.0], device=THERE),
        "index.Tensor has tensors of both": lambda: there[torch.tensor([0, 1])],
    }
    for words, run in wrong.items():
        with watched(monkeypatch) as faults:
            run()
        assert any(words in fault for fault in faults), words
