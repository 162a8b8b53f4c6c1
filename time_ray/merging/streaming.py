"""Merges from file to file; memory does not grow with the number of experts, nor (elementwise) with the model."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from time_ray.merging.declaration import Technique
from time_ray.merging.engine import CHUNK, Merger, NotANumber, Plan, named
from time_ray.merging.errors import MergeError, gathered
from time_ray.merging.in_memory import identities, with_lines
from time_ray.merging.lines import tower
from time_ray.merging.models import FileModel, open_each
from time_ray.merging.pieces import Expert, Piece
from time_ray.merging.progress import Meter, Progress
from time_ray.merging.rule import Rule
from time_ray.merging.selection import histograms
from time_ray.merging.sidecar import Sidecar, digest
from time_ray.merging.techniques import technique_named

PathLike = str | os.PathLike[str]
RECIPE = "time_ray.merge"
"""The key of the recipe in the output's metadata."""


@dataclass
class Files:
    """The open inputs of a streamed merge."""

    base: FileModel
    experts: list[FileModel]
    sidecars: list[Sidecar]
    """The base's, then the experts'."""


@dataclass
class Request:
    """A merge without fault."""

    row: Technique
    filled: Mapping[str, Any]
    rule: Rule
    files: Files
    names: Sequence[str]
    """The experts' ids."""


def merge_files(
    base: PathLike,
    experts: Iterable[PathLike],
    output: PathLike,
    technique: str,
    *,
    ids: Sequence[str] | None = None,
    lines: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    threads: int = 1,
    chunk: int = CHUNK,
    sidecars: bool = True,
    **params: Any,
) -> dict[str, Any]:
    """The output file holds the merge of the expert files (oldest first); its recipe is in its metadata and returned.

    Bytes equal those of `merge` for any `threads` and `chunk` (elements). The file appears whole or not at all.
    `progress` is called with bytes done and bytes in all. `sidecars`: digests and histograms are kept beside each input
    (`<name>.merging`) for the next merge. MergeError lists every fault of parameters, inputs and output before any
    tensor is read, or every tensor that holds NaN or Inf.
    """
    target, paths = Path(output), [Path(base), *map(Path, experts)]
    asked, faults = examine(paths, target, technique, with_lines(params, lines), ids)
    if asked is None:
        raise MergeError(*faults)
    files, names, meter = asked.files, asked.names, Meter(progress)
    plan = Plan(files.base, asked.rule, max(chunk, 1), max(threads, 1), lambda piece: meter.tick(length(piece)))
    with one_torch_thread():
        remember(files, plan, meter, keep=sidecars)
        recipe = describe(asked)
        run(plan, files, [Expert(number, name) for number, name in enumerate(names, 1)], target, recipe, meter)
        for sidecar in files.sidecars if sidecars else ():
            sidecar.save()
    meter.end()
    return recipe


def merge_faults(
    base: PathLike,
    experts: Iterable[PathLike],
    output: PathLike,
    technique: str,
    *,
    ids: Sequence[str] | None = None,
    lines: Mapping[str, Any] | None = None,
    **params: Any,
) -> list[str]:
    """Every fault for which `merge_files` would refuse this, from headers and integer tensors alone."""
    paths = [Path(base), *map(Path, experts)]
    return examine(paths, Path(output), technique, with_lines(params, lines), ids)[1]


def examine(
    paths: Sequence[Path], target: Path, technique: str, params: Mapping[str, Any], ids: Sequence[str] | None
) -> tuple[Request | None, list[str]]:
    """What was asked for, or None and every fault of parameters, inputs (the base first) and output."""
    opened, unread = open_each({str(number): path for number, path in enumerate(paths)})
    models = {number: model for number, model in opened.items() if isinstance(model, FileModel)}
    base = models.pop("0", None)
    entries = base.entries if base else ()
    faults: list[str] = []
    with gathered(faults):
        row = technique_named(technique)
        filled = row.fill(params)
        rule = row.build(filled, [entry.name for entry in entries if entry.merged])
        faults += rule.faults(len(paths) - 1)
    with gathered(faults):
        names = identities(ids, len(paths) - 1)
    faults += unread
    if base:
        faults += compatibility.faults(base, models.values())
    faults += outputs.faults(target, entries, paths)
    if faults or not base:
        return None, faults
    files = Files(base, list(models.values()), [Sidecar(model) for model in (base, *models.values())])
    return Request(row, filled, rule, files, names), []


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


def remember(files: Files, plan: Plan, meter: Meter, *, keep: bool) -> None:
    """Every sidecar knows its file's digest and, where the rule can use them, its histograms against the base."""
    if keep:
        files.sidecars = [sidecar.load() for sidecar in files.sidecars]
    unread = [sidecar for sidecar in files.sidecars if not sidecar.sha256]
    meter.expect(sum(os.fstat(sidecar.model.file).st_size for sidecar in unread))
    with ThreadPoolExecutor(plan.threads) as pool:
        for sidecar, found in zip(unread, pool.map(lambda one: digest(one.model, meter), unread), strict=True):
            sidecar.sha256, sidecar.changed = found, True
    survey(files, plan, meter)
    for sidecar in files.sidecars if keep else ():
        sidecar.save()


def survey(files: Files, plan: Plan, meter: Meter) -> None:
    """The experts' sidecars hold the histograms that the rule can use."""
    (base, *experts), selection = files.sidecars, plan.rule.selection
    for sidecar in experts if selection else ():
        sidecar.belong(base.sha256)
    if selection is None or selection.from_towers({}) is None:
        return
    unknown = [sidecar for sidecar in experts if not sidecar.histograms and selection.label not in sidecar.bounds]
    meter.expect(2 * len(unknown) * size_of(files.base))

    def look(sidecar: Sidecar) -> None:
        sidecar.histograms = histograms(lambda: plan.magnitudes(sidecar.model), tower)
        sidecar.changed = True

    with naming(files):
        plan.each(look, iter(unknown))


def size_of(model: FileModel) -> int:
    """The bytes of its merged tensors."""
    return sum(entry.size * entry.dtype.itemsize for entry in model.entries if entry.merged)


@contextmanager
def naming(files: Files) -> Iterator[None]:
    """A NaN or Inf that is met inside becomes the error that names all of them."""
    try:
        yield
    except NotANumber:
        raise named([files.base, *files.experts]) from None


def describe(asked: Request) -> dict[str, Any]:
    """The recipe: all that determines the output's values, as JSON can hold it."""
    row, filled = asked.row, asked.filled
    inputs = [{"file": one.model.path.name, "sha256": one.sha256} for one in asked.files.sidecars]
    if row.random:
        inputs[1:] = [{**known, "id": name} for known, name in zip(inputs[1:], asked.names, strict=True)]
    versions = {row.name: row.version, "time_ray": time_ray.__version__, "torch": str(torch.__version__)}
    idle = row.idle(filled)
    parameters = {name: filled[name] for name in sorted(filled) if name not in idle}
    return {
        "technique": row.name,
        "parameters": parameters,
        "base": inputs[0],
        "experts": inputs[1:],
        "versions": versions,
    }


def run(plan: Plan, files: Files, who: Sequence[Expert], target: Path, recipe: Mapping[str, Any], meter: Meter) -> None:
    """The output file is whole."""
    size = size_of(files.base)
    selection = plan.rule.selection
    unmet = [one for one in who if selection and selection.label not in files.sidecars[one.number].bounds]
    meter.expect((len(who) + 2 + 2 * len(unmet)) * size)
    met: dict[int, Expert] = {}

    def meet(one: Expert) -> None:
        sidecar = files.sidecars[one.number]
        if selection and selection.label not in sidecar.bounds:
            found = plan.meet(sidecar.model, one, selection.from_towers(sidecar.histograms))
            sidecar.remember(selection.label, found.bounds)
        met[one.number] = replace(one, bounds=sidecar.bounds[selection.label]) if selection else one

    metadata = {**files.base.header.get("__metadata__", {}), RECIPE: json.dumps(recipe, sort_keys=True)}
    with naming(files), outputs.whole_file(target, files.base.entries, metadata) as write:
        plan.each(meet, iter(who))
        for entry in files.base.entries:
            if not entry.merged:
                write(entry, 0, files.base.read(entry, 0, entry.size))

        def sink(piece: Piece, values: Tensor) -> None:
            write(piece.entry, piece.start, values)
            meter.tick(length(piece))

        Merger(plan, files.experts, [met[one.number] for one in who], sink).run()
