"""Import of Parquet folders as others write them, such as a data set saved from the Hugging Face hub."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from time_ray.core.errors import UserError
from time_ray.learn.dataset import Card, write_dataset
from time_ray.learn.importing import PROMPT, image_fault, is_held_out
from time_ray.learn.shards import Row

CLASSES = "classes.json"
BATCH = 64  # rows in memory at a time
TEST_WORDS = frozenset({"test", "val", "valid", "validation"})


class _Sample(NamedTuple):
    """A row as found."""

    path: Path
    row: int
    image: bytes | None
    captions: tuple[str, ...]
    label: int | str | None

    @property
    def where(self) -> str:
        return f"{self.path}: row {self.row}"


@dataclass(frozen=True)
class _Source:
    root: Path
    splits: Mapping[str, Sequence[Path]]
    classes: Sequence[str] | None

    def number(self, label: int | str | None) -> int | None:
        """The class of a label: -1 for none, None if it is outside the class list."""
        if label is None:
            return -1
        classes = self.classes or ()
        if isinstance(label, str):
            return classes.index(label) if label in classes else None
        return label if -1 <= label < len(classes) else None


def import_parquet(root: str | Path, folder: str | Path) -> Card:
    """Write the Parquet files under root as a dataset named after it.

    Columns: `image` (bytes, or a struct with `bytes`), `captions` or `caption`, and `label` (a number or a name);
    captions or labels may be missing. Class names come from classes.json (a list), from Hugging Face metadata, or
    from labels that are names. Files whose path says test or val are for testing; without any, every fifth row of a
    class is. Every image is decoded once; raises UserError, naming each bad row, before anything is written.
    """
    source = _source(Path(root))
    UserError.unless_none(_faults(source))
    classes = source.classes or []
    return write_dataset(
        folder,
        name=source.root.resolve().name,
        kind="classification" if classes else "captions",
        classes=classes,
        templates=[PROMPT] if classes else [],
        splits=_splits(source),
    )


def _source(root: Path) -> _Source:
    paths = sorted(root.rglob("*.parquet"))
    if not paths:
        msg = f"{root}: no Parquet files here; correct the path"
        raise UserError(msg)
    UserError.unless_none(fault for path in paths for fault in _file_faults(path))
    splits: dict[str, list[Path]] = {"train": [], "test": []}
    for path in paths:
        words = re.split("[^a-z]+", path.relative_to(root).as_posix().lower())
        splits["train" if TEST_WORDS.isdisjoint(words) else "test"].append(path)
    return _Source(root, splits, _classes(root, paths))


def _file_faults(path: Path) -> Iterator[str]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        yield f"{path}: not a readable Parquet file; replace or remove it"
        return
    if "image" not in schema.names:
        yield f"{path}: no column image, only {', '.join(schema.names)}; rename the column that holds the images"
    if not {"label", "captions", "caption"} & set(schema.names):
        yield f"{path}: no column label, captions or caption; add one"


def _classes(root: Path, paths: Sequence[Path]) -> list[str] | None:
    listed = root / CLASSES
    if listed.is_file():
        return _listed(listed)
    metadata = pq.read_schema(paths[0]).metadata or {}
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    if "names" in features.get("label", {}):
        return [str(name) for name in features["label"]["names"]]
    labels = {sample.label for path in paths for sample in _samples(path, images=False)}
    names = {label for label in labels if isinstance(label, str)}
    return sorted(names) if names else None


def _listed(path: Path) -> list[str]:
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path}: not valid JSON ({error}); write a list of class names"
        raise UserError(msg) from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not classes:
        msg = f"{path}: not a list of class names; write one, in the order of the labels"
        raise UserError(msg)
    return classes


def _faults(source: _Source) -> Iterator[str]:
    if not source.splits["train"]:
        yield f"{source.root}: only test files, no training files; add some"
    for name, count in Counter(source.classes or ()).items():
        if count > 1:
            yield f"{source.root}: class {name} is listed {count} times; list each class once"
    for path in (path for paths in source.splits.values() for path in paths):
        for sample in _samples(path, images=True):
            yield from _sample_faults(source, sample)


def _sample_faults(source: _Source, sample: _Sample) -> Iterator[str]:
    fault = "there is none" if sample.image is None else image_fault(sample.image)
    if fault is not None:
        yield f"{sample.where}: not a readable image ({fault}); replace or remove the row"
    if source.classes is None and sample.label is not None:
        yield f"{sample.where}: label {sample.label}, but there are no class names; add {CLASSES}, a list of them"
    elif source.number(sample.label) is None:
        yield f"{sample.where}: label {sample.label} is outside the {len(source.classes or ())} classes; correct it"
    elif source.classes and source.number(sample.label) == -1:
        yield f"{sample.where}: no label, though there are classes; add it, or remove the row"
    if not source.classes and not sample.captions:
        yield f"{sample.where}: neither a caption nor a label; add one, or remove the row"


def _splits(source: _Source) -> dict[str, Iterator[Row]]:
    if source.splits["test"] or not source.classes:
        return {name: _rows(source, paths, None) for name, paths in source.splits.items() if paths}
    return {name: _rows(source, source.splits["train"], name) for name in ("train", "test")}


def _rows(source: _Source, paths: Sequence[Path], part: str | None) -> Iterator[Row]:
    """The rows of the files; with `part` only those of that part of a split made here."""
    seen: Counter[int] = Counter()
    for sample in (sample for path in paths for sample in _samples(path, images=True)):
        label = source.number(sample.label)
        if label is None or sample.image is None:
            continue  # never: such rows are faults
        seen[label] += 1
        if part is not None and is_held_out(seen[label] - 1) != (part == "test"):
            continue
        captions = sample.captions or (PROMPT.format((source.classes or ())[label]),)
        yield Row(sample.image, captions, label, f"{sample.path.relative_to(source.root).as_posix()}:{sample.row}")


def _samples(path: Path, *, images: bool) -> Iterator[_Sample]:
    file = pq.ParquetFile(path)
    wanted = {"captions", "caption", "label"} | ({"image"} if images else set())
    columns = [name for name in file.schema_arrow.names if name in wanted]
    position = 0
    for batch in file.iter_batches(batch_size=BATCH, columns=columns):
        for row in batch.to_pylist():
            yield _sample(path, position, row)
            position += 1


def _sample(path: Path, position: int, row: Mapping[str, Any]) -> _Sample:
    image = row.get("image")
    captions = row.get("captions", row.get("caption"))
    if captions is None:
        captions = ()
    elif isinstance(captions, str):
        captions = (captions,)
    return _Sample(
        path,
        position,
        image["bytes"] if isinstance(image, dict) else image,
        tuple(caption for caption in captions if caption),
        row.get("label"),
    )
