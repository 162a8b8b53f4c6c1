"""What models cost, against open_clip's own profile and the benchmark's numbers."""

from collections.abc import Iterable

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from time_ray.clip.cost import operations, size, step_cost
from time_ray.clip.models import create
from time_ray.core.budget import Budget
from time_ray.core.model import ModelSpec

# open_clip's docs/model_profile.csv: parameters in millions (all, image, text), GFLOPs of a forward pass
PROFILE = {
    "ViT-S-16": (62.26, 21.81, 40.44, 12.58),
    "ViT-B-32": (151.28, 87.85, 63.43, 14.78),
    "ViT-B-16": (149.62, 86.19, 63.43, 41.09),
    "ViT-L-14": (427.62, 303.97, 123.65, 175.33),
    "ViT-H-14": (986.11, 632.08, 354.03, 381.68),
    "ViT-g-14": (1366.68, 1012.65, 354.03, 581.15),
    "ViT-bigG-14": (2539.57, 1844.91, 694.66, 1065.36),
}
# GFLOPs of a step on 512 pairs: measured by the benchmark's authors for B-16, three forward passes for the others
STEP = {
    "ViT-S-16": 19_323,
    "ViT-B-32": 22_702,
    "ViT-B-16": 63_394.7585,
    "ViT-L-14": 269_307,
    "ViT-H-14": 586_260,
    "ViT-g-14": 892_646,
}


OTHERS = ("ViT-B-32", "ViT-L-14", "ViT-g-14", "ViT-H-14", "ViT-bigG-14")  # seconds each


def some_by_default(names: Iterable[str]) -> list[ParameterSet]:
    return [pytest.param(name, marks=pytest.mark.nightly if name in OTHERS else ()) for name in names]


@pytest.mark.parametrize("name", some_by_default(PROFILE))
def test_sizes_are_those_of_open_clips_profile(name: str) -> None:
    counted, done = size(name), operations(name, 512)
    assert [count / 1e6 for count in counted] == pytest.approx(PROFILE[name][:3], abs=0.0051)
    assert (done.image + done.text) / 512 == pytest.approx(PROFILE[name][3], abs=0.0051)


@pytest.mark.parametrize("name", some_by_default(STEP))
def test_a_step_costs_what_the_benchmark_says(name: str) -> None:
    assert step_cost(name, 512).maf == pytest.approx(STEP[name], rel=1e-8 if name == "ViT-B-16" else 0.01)


@pytest.mark.parametrize(("num_tasks", "steps"), [(20, 1420), (50, 568), (100, 284), (200, 142)])
@pytest.mark.parametrize("text", ["1x", "1.8e9 GFLOPs"])
def test_the_benchmarks_steps(text: str, num_tasks: int, steps: int) -> None:
    assert Budget.parse(text).steps(512, num_tasks, lambda: step_cost("ViT-B-16", 512)) == steps


def test_counting_without_memory_is_counting(spec: ModelSpec) -> None:
    module: nn.Module = create(spec).module.train()
    images, tokens = torch.zeros(4, 3, 16, 16), torch.ones(4, module.context_length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        pictures, texts, scale = module(images, tokens)
        logits = scale * pictures @ texts.T
        (cross_entropy(logits, torch.arange(4)) + cross_entropy(logits.T, torch.arange(4))).backward()
    assert step_cost(spec.name, 4).gflops * 1e9 == pytest.approx(counter.get_total_flops())


def test_towers_are_told_apart(spec: ModelSpec) -> None:
    counted, module = size(spec.name), create(spec).module
    assert counted.image == sum(tensor.numel() for tensor in module.visual.parameters())
    assert counted.total == counted.image + counted.text == sum(tensor.numel() for tensor in module.parameters())
    done = operations(spec.name, 4)
    assert 0 < done.image + done.text < done.step
