"""Merges in memory: all at once, over time, and the running pairwise merge of a temporal loop."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from time_ray.merging import compatibility
from time_ray.merging.declaration import TechniqueLike, holds
from time_ray.merging.engine import CHUNK, DEVICE_CHUNK, MergePlan, Merger, NotFinite, not_finite_error
from time_ray.merging.errors import MergeError
from time_ray.merging.guard import build_rule
from time_ray.merging.models import Model, ModelLike, open_model, open_models
from time_ray.merging.pieces import Expert, Piece
from time_ray.merging.techniques import technique_named

Weights = dict[str, Tensor]


class MemoryOutput:
    """A model in memory that is written piece by piece, shaped like another one."""

    def __init__(self, base: Model) -> None:
        """Integer tensors are copied at once."""
        self.tensors: Weights = {}
        for entry in base.entries:
            source = base.read(entry, 0, entry.size)
            self.tensors[entry.name] = torch.empty_like(source) if entry.merged else source.clone()
        self.shapes = {entry.name: entry.shape for entry in base.entries}

    def write(self, piece: Piece, values: Tensor) -> None:
        """The piece holds these values, in its own dtype."""
        self.tensors[piece.name][piece.start : piece.stop] = values

    def whole(self) -> Weights:
        """The tensors in their shapes."""
        return {name: tensor.view(self.shapes[name]) for name, tensor in self.tensors.items()}


def expert_ids(ids: Sequence[str] | None, count: int) -> list[str]:
    """One id per expert: those given, or "1", "2", ...; MergeError if they do not fit or are not distinct."""
    found = [str(number) for number in range(1, count + 1)] if ids is None else list(ids)
    if len(found) != count or not all(isinstance(one, str) for one in found):
        raise MergeError(f"ids: {found!r} for {count} experts; give one string per expert")
    if len(set(found)) < count:
        raise MergeError(f"ids: {found!r} repeat; give each expert its own, since it names its random draws")
    return found


def with_lines(params: Mapping[str, Any], lines: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters, with LiNeS if it is asked for."""
    return dict(params) if lines is None else {**params, "lines": lines}


def plan_merge(base: ModelLike, technique: TechniqueLike, params: Mapping[str, Any]) -> MergePlan:
    """The plan of a merge; MergeError lists every fault of technique, parameters and base."""
    chosen = technique_named(technique)
    parameters = chosen.fill(params)
    model = open_model(base, "base")
    MergeError.unless_none(compatibility.unmergeable(model))
    rule = build_rule(chosen, parameters, [entry.name for entry in model.entries if entry.merged])
    chunk = CHUNK if model.on_cpu() else DEVICE_CHUNK
    return MergePlan(model, rule, chunk if holds(chosen.elementwise, parameters) else None)


def merge_experts(plan: MergePlan, models: Sequence[Model], experts: Sequence[Expert]) -> Weights:
    """The merge of experts that are all there."""
    MergeError.unless_none([*plan.rule.faults(len(models)), *compatibility.faults(plan.base, models)])
    output = MemoryOutput(plan.base)
    try:
        bounded = [plan.with_bounds(model, expert) for model, expert in zip(models, experts, strict=True)]
        Merger(plan, models, bounded, output.write).run()
    except NotFinite:
        raise not_finite_error([plan.base, *models]) from None
    return output.whole()


def merge(
    base: ModelLike,
    experts: Iterable[ModelLike],
    technique: TechniqueLike,
    *,
    ids: Sequence[str] | None = None,
    lines: Mapping[str, Any] | None = None,
    **params: Any,
) -> Weights:
    """The merge of experts (oldest first) around their base: new tensors with the base's names, order, shapes, dtypes.

    Models are tensors by name or paths of safetensors files. `ids` name the experts' random draws (default: their
    positions "1", "2", ...). Techniques and parameters: `TECHNIQUES`. MergeError lists every fault of the request.
    """
    plan = plan_merge(base, technique, with_lines(params, lines))
    opened = open_models({f"expert {number}": model for number, model in enumerate(experts, 1)})
    names = expert_ids(ids, len(opened))
    return merge_experts(plan, list(opened.values()), [Expert(number, name) for number, name in enumerate(names, 1)])


def pair(
    base: ModelLike,
    older: ModelLike,
    newer: ModelLike,
    technique: TechniqueLike,
    *,
    weight: float = 0.5,
    ids: tuple[str | None, str] | None = None,
    lines: Mapping[str, Any] | None = None,
    **params: Any,
) -> Weights:
    """One step of a running merge: `older` is the merge so far, `newer` the expert with the share `weight`.

    Techniques without a weight ignore it. `ids` = (None, id of the newer) says that `older` is a running merge;
    a string in the first place says that it is an expert (then DARE masks it, too, and MagMax takes it as unscaled).
    The random techniques need `ids`, since draws must differ from step to step. MergeError lists every fault.
    """
    chosen = technique_named(technique)
    if ids is None and chosen.random:
        raise MergeError(f"{chosen.name}: its random draws need names; give ids=(None, id of the newer expert)")
    first, second = ids or (None, "2")
    share = {"weight": weight} if chosen.takes_weight else {}
    plan = plan_merge(base, technique, with_lines({**params, **share}, lines))
    opened = open_models({"older": older, "newer": newer})
    experts = [Expert(1, first or "", running=first is None), Expert(2, second)]
    return merge_experts(plan, list(opened.values()), experts)


def ema(
    base: ModelLike,
    experts: Iterable[ModelLike],
    technique: TechniqueLike,
    *,
    start: Literal["base", "expert"] = "base",
    weight: float = 0.5,
    ids: Sequence[str] | None = None,
    lines: Mapping[str, Any] | None = None,
    **params: Any,
) -> Weights:
    """The running pairwise merge of experts, oldest first: the fold of `pair`.

    `start`: "base" begins at the base, so the first expert is merged with it; "expert" begins at the first expert.
    """
    models = list(experts)
    names = expert_ids(ids, len(models))
    if start not in ("base", "expert"):
        raise MergeError(f"start: it is {start!r}; give one of base, expert")
    if not models:
        raise MergeError("experts: none is given; give at least one")
    older: str | None = None
    running = base
    if start == "expert":
        older, running = names.pop(0), models.pop(0)
    for model, name in zip(models, names, strict=True):
        running = pair(base, running, model, technique, weight=weight, ids=(older, name), lines=lines, **params)
        older = None
    return running if models and isinstance(running, dict) else merge(base, [running], "average")
