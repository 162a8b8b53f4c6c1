"""Every architecture that a plan accepts holds tensors that can be merged, and every technique merges them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from time_ray.clip.batch_norm import has_batch_norm, layers
from time_ray.clip.models import outline
from time_ray.clip.weights import known_name
from time_ray.core.errors import UserError
from time_ray.merging import TECHNIQUES, ema, fold, merge
from time_ray.merging.compatibility import faults
from time_ray.merging.models import MemoryModel
from time_ray.merging.pieces import STATISTICS

OF_EACH_KIND = ("ViT-B-32", "RN50-quickgelu", "MobileCLIP-B", "MobileCLIP2-S0", "ViTamin-S", "EVA02-B-16")
RULES = {name: row for name, row in TECHNIQUES.items() if not row.needs_moments}
DEFAULTS = [(name, {}) for name in RULES]
EXAMPLES = [(name, params) for name, row in RULES.items() for params in row.examples]
Settings = Iterable[tuple[str, Mapping[str, Any]]]
Weights = dict[str, Tensor]


@cache
def refusals() -> Mapping[str, str]:
    """Why a plan refuses architectures, by name."""
    found = {}
    for name in open_clip.list_models():
        try:
            known_name(name)
        except UserError as error:
            (found[name],) = error.faults
    return found


def accepted() -> list[str]:
    return [name for name in open_clip.list_models() if name not in refusals()]


def problems(name: str) -> Iterable[str]:
    """What a merge could not do with the tensors of an architecture."""
    module = outline(name)
    state = module.state_dict(keep_vars=True)
    names = defaultdict(list)
    for path, values in state.items():
        names[id(values)].append(path)
    yield from (f"{name}: one tensor under the names {shared}" for shared in names.values() if len(shared) > 1)
    kept = {id(buffer): path for layer in layers(module) for path, buffer in layer.named_buffers()}
    for path, values in state.items():
        is_number = values.is_floating_point()
        if is_number != (kept.get(id(values)) != "num_batches_tracked"):
            yield f"{name}: {path} {values.dtype}{list(values.shape)} is no counter of BatchNorm"
        if is_number and (values.dtype != torch.float32 or not values.numel()):
            yield f"{name}: {path} {values.dtype}{list(values.shape)} is not float32, or empty"
        if is_number and (not values.shape) != (path == "logit_scale"):
            yield f"{name}: {path} has no dimension"
        if not isinstance(values, nn.Parameter) and id(values) not in kept:
            yield f"{name}: {path} is a buffer, and none of BatchNorm"
        if (path.rpartition(".")[2] in STATISTICS) != (kept.get(id(values)) in STATISTICS):
            yield f"{name}: {path} is called as a statistic of BatchNorm is"


def miniature(name: str) -> Weights:
    """A small model with a tensor for each that differs from the others by more than a number in its name."""
    found: Weights = {}
    random = torch.Generator().manual_seed(0)
    seen = set()
    for path, values in outline(name).state_dict().items():
        kind = re.sub(r"\d+", "#", path), values.ndim
        if kind in seen:
            continue
        seen.add(kind)
        shape = [min(size, 6) for size in values.shape]
        found[path] = torch.randn(shape, generator=random) if values.is_floating_point() else torch.tensor(3)
        if path.endswith("running_var"):
            found[path].abs_()
    return found


def moved(base: Weights, seed: int) -> Weights:
    random = torch.Generator().manual_seed(seed)
    step = {name: 0.1 * torch.rand(values.shape, generator=random) for name, values in base.items()}
    return {n: values + (step[n] if values.is_floating_point() else seed) for n, values in base.items()}


def unmerged(base: Weights, settings: Settings) -> Iterable[str]:
    """What is wrong with the merges of a small model by every technique, at once, over time and pairwise."""
    experts = [moved(base, seed) for seed in (1, 2)]
    yield from faults(MemoryModel(base, "base"), [MemoryModel(expert, "expert") for expert in experts])
    for technique, params in settings:
        running = fold(technique, base, **params)
        for expert in experts:
            running.add(expert)
        at_once = merge(base, experts, technique, **params)
        yield from (
            f"{technique} {params}: {name} over time"
            for name, values in running.result().items()
            if not torch.equal(values, at_once[name])
        )
        for result in (at_once, ema(base, experts, technique, **{k: v for k, v in params.items() if k != "weights"})):
            for name, values in result.items():
                if values.shape != base[name].shape or not values.isfinite().all():
                    yield f"{technique} {params}: {name} is {values}"
                if name.endswith("running_var") and not (values >= 0).all():
                    yield f"{technique} {params}: {name} is negative"
                if name.endswith("num_batches_tracked") and values != 3 + 2:
                    yield f"{technique} {params}: {name} is {values}"


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_one_of_each_kind_has_what_merging_takes(name: str) -> None:
    assert [*problems(name)] == []


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50-quickgelu"])
def test_with_and_without_batch_norm_every_technique_merges(name: str) -> None:
    assert [*unmerged(miniature(name), DEFAULTS)] == []


@pytest.mark.nightly
def test_every_architecture_can_be_merged_or_is_refused() -> None:
    assert [fault for name in accepted() for fault in problems(name)] == []
    kinds = defaultdict(list)
    for name in accepted():
        small = miniature(name)
        kinds[tuple((re.sub(r"\d+", "#", path), tuple(values.shape)) for path, values in small.items())].append(name)
    settings = [*DEFAULTS, *EXAMPLES]
    assert [fault for names in kinds.values() for fault in unmerged(miniature(names[0]), settings)] == []
    normed = {name for name in accepted() if has_batch_norm(name)}
    print(f"{len(accepted())} accepted, {len(normed)} with BatchNorm, {len(kinds)} kinds; refused: {len(refusals())}")
    assert {re.split(r"[\dx-]", name)[0] for name in normed} == {"RN", "MobileCLIP"}


def test_what_is_refused_says_why_in_a_line() -> None:
    reasons = Counter(line.split(": ", 1)[1].split("; ")[0] for line in refusals().values())
    assert len(accepted()) + sum(reasons.values()) == len(open_clip.list_models())
    assert set(reasons) == {
        "SigLIP's sigmoid loss is not supported",
        "CoCa's caption decoder is not supported",
        "text towers of the Hugging Face hub are not supported",
    }
