"""Merges in memory: all at once, over time, and the running pairwise merge of a temporal loop."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from time_ray.merging import compatibility
from time_ray.merging.batch_norm import statistics_rule
from time_ray.merging.declaration import TechniqueLike, holds
from time_ray.merging.engine import (
    CHUNK,
    DEVICE_CHUNK,
    DtypeOf,
    MergePlan,
    Merger,
    NotFinite,
    base_dtype,
    not_finite_error,
    precision,
)
from time_ray.merging.errors import MergeError
from time_ray.merging.guard import build_rule
from time_ray.merging.models import Model, ModelLike
from time_ray.merging.opening import open_model, open_models
from time_ray.merging.pieces import Expert, Piece
from time_ray.merging.techniques import technique_named

Weights = dict[str, Tensor]
WRITTEN = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
"""The dtypes that a result may have, by name."""


class MemoryOutput:
    """A model in memory that is written piece by piece, shaped like another one."""

    def __init__(self, plan: MergePlan, counters: Weights) -> None:
        """Integer tensors are copied at once; `counters` are those of the newest expert."""
        self.tensors: Weights = {}
        for entry in plan.output_entries():
            source = plan.base.read(entry, 0, entry.size)
            empty = torch.empty_like(source, dtype=entry.dtype)
            self.tensors[entry.name] = empty if entry.merged else counters.get(entry.name, source).clone()
        self.shapes = {entry.name: entry.shape for entry in plan.base.entries}

    def write(self, piece: Piece, values: Tensor) -> None:
        """The piece holds these values, in its own dtype."""
        self.tensors[piece.name][piece.start : piece.stop] = values

    def whole(self) -> Weights:
        """The tensors in their shapes."""
        return {name: tensor.view(self.shapes[name]) for name, tensor in self.tensors.items()}


def counters(newest: Model, base: Model) -> Weights:
    """The counters of the newest expert (BatchNorm's `num_batches_tracked`), flat, on the base's device."""
    entries = [entry for entry in base.entries if entry.counts]
    places = {entry.name: base.read(entry, 0, 1) for entry in entries}
    return {entry.name: newest.read(entry, 0, 1).to(places[entry.name]) for entry in entries}


def result_dtype(dtype: str | torch.dtype | None) -> DtypeOf:
    """The dtype of a result: the base's, or one of those that are merged; MergeError for any other."""
    if dtype is None:
        return base_dtype
    kind = WRITTEN.get(str(dtype).removeprefix("torch."))
    if kind is None:
        raise MergeError(f"dtype: '{dtype}' is none of a merged model; give one of {', '.join(WRITTEN)}")
    return lambda _: kind


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


def plan_merge(
    base: ModelLike,
    technique: TechniqueLike,
    params: Mapping[str, Any],
    dtype_of: DtypeOf = base_dtype,
    device: str | torch.device | None = None,
) -> MergePlan:
    """The plan of a merge; MergeError lists every fault of technique, parameters and base."""
    chosen = technique_named(technique)
    parameters = chosen.fill(params)
    model = open_model(base, "base")
    MergeError.unless_none(compatibility.unmergeable(model))
    rule = build_rule(chosen, parameters, [entry.name for entry in model.entries if entry.merged])
    where = None if device is None else torch.device(device)
    on_cpu = model.on_cpu() if where is None else where.type == "cpu"
    chunk = CHUNK if on_cpu else DEVICE_CHUNK
    return MergePlan(
        model,
        rule,
        chunk if holds(chosen.elementwise, parameters) else None,
        dtype_of=dtype_of,
        statistics=statistics_rule(chosen, parameters, rule),
        device=where,
    )


def merge_experts(plan: MergePlan, models: Sequence[Model], experts: Sequence[Expert]) -> Weights:
    """The merge of experts that are all there."""
    MergeError.unless_none([*plan.rule.faults(len(models)), *compatibility.faults(plan.base, models)])
    output = MemoryOutput(plan, counters(models[-1], plan.base))
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
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    **params: Any,
) -> Weights:
    """The merge of experts (oldest first) around their base: new tensors with the base's names, order, shapes, dtypes.

    Models are tensors by name or paths; see `opening.open_model`. Arithmetic is in float32, whatever dtypes they have;
    `dtype` (such as "bfloat16") is the result's instead of the base's. `ids` name the experts' random draws (default:
    their positions "1", "2", ...). `device` is where the arithmetic is done, piece by piece (default: where the base
    is); the result lies where the base does. Techniques and parameters: `TECHNIQUES`. MergeError lists every fault.
    """
    plan = plan_merge(base, technique, with_lines(params, lines), result_dtype(dtype), device)
    opened = open_models({f"expert {number}": model for number, model in enumerate(experts, 1)}, plan.base)
    names = expert_ids(ids, len(opened))
    return merge_experts(plan, list(opened.values()), [Expert(number, name) for number, name in enumerate(names, 1)])


def merge_by_moments(
    technique: TechniqueLike,
    experts: Sequence[Mapping[str, Tensor]],
    moments: Sequence[Mapping[str, Tensor]],
    params: Mapping[str, Any],
) -> Weights:
    """The merge of experts, oldest first, by a technique that needs the second moments of each.

    Of a model that is merged itself they are the sum of those of its experts, and of a base zeros. MergeError lists
    every fault.
    """
    chosen = technique_named(technique)
    if chosen.by_moments is None:
        raise MergeError(f"{chosen.name}: it takes no moments; use merge")
    return chosen.by_moments(experts, moments, chosen.fill(params))


def pair(
    base: ModelLike,
    older: ModelLike,
    newer: ModelLike,
    technique: TechniqueLike,
    *,
    weight: float = 0.5,
    ids: tuple[str | None, str] | None = None,
    lines: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    **params: Any,
) -> Weights:
    """One step of a running merge: `older` is the merge so far, `newer` the expert with the share `weight`.

    Techniques without a weight ignore it. `ids` = (None, id of the newer) says that `older` is a running merge;
    a string in the first place says that it is an expert (then DARE masks it, too, and MagMax takes it as unscaled).
    The random techniques need `ids`, since draws must differ from step to step. `device` as for `merge`. MergeError
    lists every fault.
    """
    given = with_lines(params, lines)
    return step(base, older, newer, technique, weight, ids, given, result_dtype(dtype), device)


def step(
    base: ModelLike,
    older: ModelLike,
    newer: ModelLike,
    technique: TechniqueLike,
    weight: float,
    ids: tuple[str | None, str] | None,
    params: Mapping[str, Any],
    dtype_of: DtypeOf,
    device: str | torch.device | None = None,
) -> Weights:
    """One step of a running merge, in any dtype; see `pair`."""
    chosen = technique_named(technique)
    if ids is None and chosen.random:
        raise MergeError(f"{chosen.name}: its random draws need names; give ids=(None, id of the newer expert)")
    first, second = ids or (None, "2")
    share = {"weight": weight} if chosen.takes_weight else {}
    plan = plan_merge(base, technique, {**params, **share}, dtype_of, device)
    opened = open_models({"older": older, "newer": newer}, plan.base)
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
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    **params: Any,
) -> Weights:
    """The running pairwise merge of experts, oldest first: the fold of `pair`.

    `start`: "base" begins at the base, so the first expert is merged with it; "expert" begins at the first expert.
    Models of half precision stay in float32 from step to step, and are rounded once. `device` as for `merge`.
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
    if not models:
        return merge(base, [running], "average", dtype=dtype, device=device)
    given, last = with_lines(params, lines), len(models)
    for number, (model, name) in enumerate(zip(models, names, strict=True), 1):
        dtype_of = precision if number < last else result_dtype(dtype)
        running = step(base, running, model, technique, weight, (older, name), given, dtype_of, device)
        older = None
    return dict(running) if isinstance(running, Mapping) else {}
