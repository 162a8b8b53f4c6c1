"""What must hold of models before they are merged, and where a value is no number."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from time_ray.merging.lora import LoraModel
from time_ray.merging.models import Model
from time_ray.merging.pieces import cut
from time_ray.merging.wrappers import foreign_prefix

SCAN = 1 << 20
"""Elements that are looked at together."""


def mismatches(base: Model, expert: Model) -> Iterator[str]:
    """Every tensor that one of them lacks, or has in another shape, or as integers where the other has numbers."""
    wanted, given = base.by_name(), expert.by_name()
    for name in wanted.keys() - given.keys():
        yield f"{expert.label}: has no {name} {wanted[name]}; give an expert of the base's architecture"
    for name in given.keys() - wanted.keys():
        yield f"{expert.label}: {name} {given[name]} is not in the base; give an expert of the base's architecture"
    for name in wanted.keys() & given.keys():
        if not given[name].dtype.is_complex and (wanted[name].shape, wanted[name].merged) != (
            given[name].shape,
            given[name].merged,
        ):
            yield f"{expert.label}: {name} is {given[name]} and {wanted[name]} in the base; make them the same"


def unmergeable(model: Model) -> Iterator[str]:
    """Every tensor of a kind that has no arithmetic here."""
    for entry in model.entries:
        if entry.dtype.is_complex or (entry.merged and entry.dtype.itemsize < 2):
            yield f"{model.label}: {entry.name} is {entry}; convert it to float32, float16 or bfloat16"


def different_buffers(base: Model, expert: Model) -> Iterator[str]:
    """Every integer tensor in which they disagree, but for counters, which are the newest expert's."""
    for entry in base.entries:
        if entry.merged or entry.counts:
            continue
        ours, theirs = (model.read(entry, 0, entry.size).cpu().to(torch.int64) for model in (base, expert))
        if not torch.equal(ours, theirs):
            yield f"{expert.label}: {entry.name} {entry} differs from the base; make integers equal"


def mixed(base: Model, models: Iterable[Model]) -> bool:
    """Whether some tensor has one dtype in the base and another in a model."""
    own = base.by_name()
    return any(
        entry.merged and entry.name in own and own[entry.name].dtype != entry.dtype
        for model in models
        for entry in model.entries
        if not isinstance(model, LoraModel)  # its float32 is that of the arithmetic
    )


def faults(base: Model, experts: Iterable[Model]) -> Iterator[str]:
    """Every reason not to merge that headers and integer buffers show."""
    yield from unmergeable(base)
    for expert in experts:
        foreign = list(foreign_prefix(base, expert))
        found = [*unmergeable(expert), *(foreign or sorted(mismatches(base, expert)))]
        yield from found or different_buffers(base, expert)


def not_finite(models: Sequence[Model]) -> Iterator[str]:
    """Every tensor of every model that holds a NaN or an infinity."""
    for model in models:
        for entry in model.entries:
            pieces = cut([entry], SCAN)
            if any(not model.read(entry, piece.start, piece.stop).isfinite().all() for piece in pieces):
                yield f"{model.label}: {entry.name} holds NaN or Inf; leave this model out or train it again"
