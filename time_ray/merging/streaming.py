"""Merges from file to file; memory does not grow with the number of experts, nor (elementwise) with the model."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import time_ray
from time_ray.merging import compatibility
from time_ray.merging import output as outputs
from time_ray.merging.batch_norm import statistics_rule
from time_ray.merging.declaration import Technique, TechniqueLike, holds
from time_ray.merging.engine import CHUNK, DtypeOf, MergePlan, Merger, NotFinite, base_dtype, not_finite_error
from time_ray.merging.errors import MergeError, collecting
from time_ray.merging.guard import build_rule
from time_ray.merging.in_memory import expert_ids, result_dtype, with_lines
from time_ray.merging.lines import tower
from time_ray.merging.models import StoredModel
from time_ray.merging.opening import is_adapter, open_each
from time_ray.merging.pieces import Expert, Piece
from time_ray.merging.progress import ProgressCallback, ProgressMeter
from time_ray.merging.rule import Rule
from time_ray.merging.selection import histograms
from time_ray.merging.sidecar import Sidecar, digest
from time_ray.merging.techniques import technique_named

PathLike = str | os.PathLike[str]
RECIPE_KEY = "time_ray.merge"
"""The key of the recipe in the output's metadata."""


@dataclass
class InputFiles:
    """The open inputs of a streamed merge."""

    base: StoredModel
    experts: list[StoredModel]
    sidecars: list[Sidecar]
    """The base's, then the experts'."""


@dataclass
class MergeRequest:
    """A merge without fault."""

    technique: Technique
    parameters: Mapping[str, Any]
    """In canonical form."""
    rule: Rule
    files: InputFiles
    experts: Sequence[Expert]
    dtype_of: DtypeOf


def merge_files(
    base: PathLike,
    experts: Iterable[PathLike],
    output: PathLike,
    technique: TechniqueLike,
    *,
    ids: Sequence[str] | None = None,
    lines: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
    threads: int = 1,
    chunk: int = CHUNK,
    sidecars: bool = True,
    dtype: str | torch.dtype | None = None,
    say: Callable[[str], None] | None = None,
    **params: Any,
) -> dict[str, Any]:
    """The output file holds the merge of the expert files (oldest first); its recipe is in its metadata and returned.

    Bytes equal those of `merge` for any `threads` and `chunk` (elements). The file appears whole or not at all.
    Models are paths; see `opening.open_model`. `dtype` (such as "bfloat16") is the output's instead of the base's.
    `progress` is called with bytes done and bytes in all, `say` with what was done to read inputs. `sidecars`: digests
    and histograms are kept beside each input (`<name>.merging`) for the next merge. MergeError lists every fault of
    parameters, inputs and output before any tensor is read, or every tensor that holds NaN or Inf.
    """
    target, paths = Path(output), [Path(base), *map(Path, experts)]
    request, faults = examine(paths, target, technique, with_lines(params, lines), ids, dtype)
    if request is None:
        raise MergeError(*faults)
    files, meter = request.files, ProgressMeter(progress)
    if say:
        for note in notes(files):
            say(note)
    size = max(chunk, 1) if holds(request.technique.elementwise, request.parameters) else None
    ticked = lambda piece: meter.tick(length(piece))  # noqa: E731
    statistics = statistics_rule(request.technique, request.parameters, request.rule)
    plan = MergePlan(files.base, request.rule, size, max(threads, 1), ticked, request.dtype_of, statistics)
    with one_torch_thread():
        complete_sidecars(files, plan, meter, keep=sidecars)
        recipe = recipe_of(request)
        write_merge(plan, request, target, recipe, meter)
        for sidecar in files.sidecars if sidecars else ():
            sidecar.save()
    meter.end()
    return recipe


def merge_faults(
    base: PathLike,
    experts: Iterable[PathLike],
    output: PathLike,
    technique: TechniqueLike,
    *,
    ids: Sequence[str] | None = None,
    lines: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    **params: Any,
) -> list[str]:
    """Every fault for which `merge_files` would refuse this, from headers and integer tensors alone."""
    paths = [Path(base), *map(Path, experts)]
    return examine(paths, Path(output), technique, with_lines(params, lines), ids, dtype)[1]


def examine(
    paths: Sequence[Path],
    target: Path,
    technique: TechniqueLike,
    params: Mapping[str, Any],
    ids: Sequence[str] | None,
    dtype: str | torch.dtype | None,
) -> tuple[MergeRequest | None, list[str]]:
    """What was asked for, or None and every fault of parameters, inputs (the base first) and output."""
    first, unread = open_each({"base": paths[0]})
    base = first.get("base")
    experts = {str(number): path for number, path in enumerate(paths[1:], 1) if base or not is_adapter(path)}
    others, faulty = open_each(experts, base)
    unread += faulty
    models = {number: model for number, model in others.items() if isinstance(model, StoredModel)}
    stored = [model for model in (*first.values(), *models.values()) if isinstance(model, StoredModel)]
    read = [file.path for model in stored for file in model.files]
    entries = base.entries if base else ()
    faults: list[str] = []
    with collecting(faults):
        chosen = technique_named(technique)
        parameters = chosen.fill(params)
        rule = build_rule(chosen, parameters, [entry.name for entry in entries if entry.merged])
        faults += rule.faults(len(paths) - 1)
    with collecting(faults):
        named = [Expert(number, one) for number, one in enumerate(expert_ids(ids, len(paths) - 1), 1)]
    dtype_of: DtypeOf = base_dtype
    with collecting(faults):
        dtype_of = result_dtype(dtype)
    faults += unread
    if base:
        faults += compatibility.faults(base, models.values())
    faults += outputs.faults(target, entries, [*paths, *read])
    if faults or not isinstance(base, StoredModel):
        return None, faults
    files = InputFiles(base, list(models.values()), [Sidecar(model) for model in (base, *models.values())])
    return MergeRequest(chosen, parameters, rule, files, named, dtype_of), []


def notes(files: InputFiles) -> Iterator[str]:
    """What is done with the inputs that their owner may not expect, each once."""
    for model in (files.base, *files.experts):
        yield from model.notes
    if compatibility.mixed(files.base, files.experts):
        yield "experts have other dtypes than the base: merged in float32, written in the base's unless dtype is given"


def length(piece: Piece) -> int:
    """The bytes of a piece."""
    return (piece.stop - piece.start) * piece.entry.dtype.itemsize


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch itself uses one thread meanwhile: this package's threads each run whole pieces."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def complete_sidecars(files: InputFiles, plan: MergePlan, meter: ProgressMeter, *, keep: bool) -> None:
    """Every sidecar knows its file's digest and, where the rule can use them, its histograms against the base."""
    if keep:
        files.sidecars = [sidecar.load() for sidecar in files.sidecars]
    unread = [sidecar for sidecar in files.sidecars if not sidecar.sha256]
    meter.expect(sum(file.stat().st_size for sidecar in unread for file in sidecar.model.files))
    with ThreadPoolExecutor(plan.threads) as pool:
        for sidecar, found in zip(unread, pool.map(lambda one: digest(one.model, meter), unread), strict=True):
            sidecar.sha256, sidecar.changed = found, True
    add_histograms(files, plan, meter)
    for sidecar in files.sidecars if keep else ():
        sidecar.save()


def add_histograms(files: InputFiles, plan: MergePlan, meter: ProgressMeter) -> None:
    """The experts' sidecars hold the histograms that the rule can use."""
    (base, *experts), selection = files.sidecars, plan.rule.selection
    for sidecar in experts if selection else ():
        sidecar.bind_to(base.sha256)
    if selection is None or selection.from_towers({}) is None:
        return
    unknown = [sidecar for sidecar in experts if not sidecar.histograms and selection.label not in sidecar.bounds]
    meter.expect(2 * len(unknown) * size_of(files.base))

    def look(sidecar: Sidecar) -> None:
        sidecar.histograms = histograms(lambda: plan.magnitudes(sidecar.model), tower)
        sidecar.changed = True

    with naming_not_finite(files):
        plan.for_each(look, iter(unknown))


def size_of(model: StoredModel) -> int:
    """The bytes of its merged tensors."""
    return sum(entry.size * entry.dtype.itemsize for entry in model.entries if entry.merged)


@contextmanager
def naming_not_finite(files: InputFiles) -> Iterator[None]:
    """A NaN or Inf that is met inside becomes the error that names all of them."""
    try:
        yield
    except NotFinite:
        raise not_finite_error([files.base, *files.experts]) from None


def recipe_of(request: MergeRequest) -> dict[str, Any]:
    """The recipe: all that determines the output's values, as JSON can hold it."""
    technique, parameters = request.technique, request.parameters
    inputs = [{"file": one.model.name, "sha256": one.sha256} for one in request.files.sidecars]
    if technique.random:
        inputs[1:] = [{**known, "id": one.id} for known, one in zip(inputs[1:], request.experts, strict=True)]
    idle = technique.idle(parameters)
    return {
        "technique": technique.name,
        "parameters": {name: parameters[name] for name in sorted(parameters) if name not in idle},
        "base": inputs[0],
        "experts": inputs[1:],
        "versions": {
            technique.name: technique.version,
            "time_ray": time_ray.__version__,
            "torch": str(torch.__version__),
        },
    }


def write_merge(
    plan: MergePlan, request: MergeRequest, target: Path, recipe: Mapping[str, Any], meter: ProgressMeter
) -> None:
    """The output file is whole."""
    files = request.files
    meter.expect((len(request.experts) + 2) * size_of(files.base))
    metadata = {**files.base.metadata, RECIPE_KEY: json.dumps(recipe, sort_keys=True)}
    with naming_not_finite(files), outputs.whole_file(target, plan.output_entries(), metadata) as write:
        bounded = with_bounds(plan, request, meter)
        for entry in files.base.entries:
            if not entry.merged:
                source = files.experts[-1] if entry.counts else files.base
                write(entry, 0, source.read(entry, 0, entry.size).to(entry.dtype))
        written = {entry.name: entry for entry in plan.output_entries()}

        def sink(piece: Piece, values: Tensor) -> None:
            write(written[piece.name], piece.start, values)
            meter.tick(length(piece))

        Merger(plan, files.experts, bounded, sink).run()


def with_bounds(plan: MergePlan, request: MergeRequest, meter: ProgressMeter) -> Sequence[Expert]:
    """The experts with the bounds that the rule needs; their sidecars know them, too."""
    selection, sidecars = plan.rule.selection, request.files.sidecars
    if selection is None:
        return request.experts
    label = selection.label
    unknown = [expert for expert in request.experts if label not in sidecars[expert.number].bounds]
    meter.expect(2 * len(unknown) * size_of(request.files.base))

    def find(expert: Expert) -> None:
        sidecar = sidecars[expert.number]
        found = plan.with_bounds(sidecar.model, expert, selection.from_towers(sidecar.histograms))
        sidecar.add_bounds(label, found.bounds)

    plan.for_each(find, iter(unknown))
    return [replace(expert, bounds=sidecars[expert.number].bounds[label]) for expert in request.experts]
