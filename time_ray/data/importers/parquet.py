"""Import of Parquet folders as others write them, such as a data set saved from the Hugging Face hub."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import pyarrow as pa
import pyarrow.parquet as pq

from time_ray.core.errors import UserError
from time_ray.data.dataset import Card
from time_ray.data.importers import class_names
from time_ray.data.importers.captions import captions_of
from time_ray.data.importers.folder_files import files_below, is_hidden
from time_ray.data.importers.imagefolder import LEADS_NOWHERE, SPLIT_NAMES, SUFFIXES
from time_ray.data.importers.pipeline import PROMPT, DatasetSpec, ImportSettings, import_parts, is_held_out
from time_ray.data.importers.sample_faults import SampleFault, note, notes_on
from time_ray.data.importers.samples import PART_SAMPLES, readable
from time_ray.data.parquet_size import check_decoded, rows_at_once
from time_ray.data.shards import Row
from time_ray.limits import JSON_BYTES, parse_json, read_at_most

CLASSES = "classes.json"
ENDING = ".parquet"
SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})")
SHOWN = 4  # class names of a file
BATCH = 64  # rows in memory at a time, at most
IMAGE = "image"
COLUMNS = frozenset({"captions", "caption", "label", IMAGE})
FAILURES = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True)
class _ParquetFolder:
    root: Path
    splits: Mapping[str, Sequence[Path]]
    classes: tuple[str, ...] | None
    notes: tuple[SampleFault, ...] = ()

    def number(self, label: Any) -> int | None:
        """The class of a label: -1 for none, None if it is outside the class list."""
        if label is None:
            return -1
        classes = self.classes or ()
        if isinstance(label, str):
            return classes.index(label) if label in classes else None
        return label if type(label) is int and -1 <= label < len(classes) else None  # a truth value is none


class _Run(NamedTuple):
    """Consecutive row groups of a file. As it is written here it goes into the keys of parts (see _part)."""

    path: str
    groups: tuple[int, ...]
    first: int  # row of the file
    rows: int


@dataclass(frozen=True)
class _Part:
    """The rows of a run that belong to a split."""

    split: str
    key: str
    source: _ParquetFolder
    run: _Run
    for_test: bytes | None  # for each row, in a split made here; None: all rows are of this split

    @property
    def weight(self) -> int:
        """How many rows are read."""
        return self.run.rows

    def read(self) -> Iterator[tuple[str, Row] | SampleFault]:
        """Each row, or what is wrong with it."""
        try:
            for number, row in enumerate(_rows(self.run, COLUMNS)):
                if self.for_test is None or self.for_test[number] == (self.split == "test"):
                    yield from self._sample(self.run.first + number, row)
        except FAILURES as error:
            where = f"{readable(self.run.path)}: rows from {self.run.first} on"
            yield SampleFault("unreadable rows", self.split, where, f"damaged ({_first_line(error)}); replace the file")

    def _sample(self, position: int, row: Mapping[str, Any]) -> Iterator[tuple[str, Row] | SampleFault]:
        where = f"{readable(self.run.path)}: row {position}"
        number, classes = self.source.number(row.get("label")), self.source.classes or ()
        captions, odd = captions_of(row.get("captions", row.get("caption")))
        faults = [SampleFault(kind, self.split, where, detail) for kind, detail in self._faults(row, captions)]
        yield from faults
        if not faults and number is not None:
            if odd:
                detail = "a caption is empty or no text; the class prompt or the others stand for it; correct it"
                yield SampleFault("odd caption", self.split, where, detail, kept=True)
            key = readable(f"{Path(self.run.path).relative_to(self.source.root).as_posix()}:{position}")
            yield where, Row(_image(row), captions or (PROMPT.format(classes[number]),), number, key)

    def _faults(self, row: Mapping[str, Any], captions: Sequence[str]) -> Iterator[tuple[str, str]]:
        label, classes = row.get("label"), self.source.classes or ()
        number = self.source.number(label)
        image = _image(row)
        if not isinstance(image, bytes):
            given = "there is none" if image is None else f"a {type(image).__name__}, where its bytes should be"
            yield "no image", f"not a readable image ({given}); replace or remove the row"
        if self.source.classes is None and label is not None:
            detail = f"label {label}, but there are no class names; add {CLASSES}, a list of them"
            yield "label outside the classes", detail
        elif number is None:
            yield "label outside the classes", f"label {label} is outside the {len(classes)} classes; correct it"
        elif classes and number == -1:
            yield "no label", "no label, though there are classes; add it, or remove the row"
        if not classes and not captions:
            yield "no caption", "neither a caption nor a label; add one, or remove the row"


def has_parquet_files(source: str) -> bool:
    """Whether it is a folder in which Parquet files lie, or one in whose folders they lie, and no images."""
    if any(_is_table(path) and not is_hidden(path.name) for path in Path(source).glob("*")):
        return True
    if not any(map(_is_table, Path(source).glob("*/*"))):
        return False
    return not any(path.suffix.lower() in SUFFIXES for path in files_below(Path(source)).files)


def parquet_files(root: str | Path) -> list[Path]:
    """The Parquet files somewhere below the folder, and its class list if there is one."""
    listed = Path(root, CLASSES)
    return sorted([*_tables(Path(root)), *([listed] if listed.is_file() else [])])


def import_parquet(root: str | Path, folder: str | Path, **settings: Unpack[ImportSettings]) -> Card:
    """Write the Parquet files under root as a dataset named after it.

    Columns: `image` (bytes, or a struct with `bytes`), `captions` or `caption`, and `label` (a number or a name);
    captions or labels may be missing. Class names come from classes.json (a list), from Hugging Face metadata, which
    must be the same in all files, or from labels that are names. Splits are told by the words of paths, as in
    SPLIT_NAMES: a validation split is for testing where there is no test split, and is not read where there is one.
    Without either, every fifth row of a class is for testing. Every image is decoded once. Bad rows are left out, and
    named in the report.

    Raises:
        UserError: no readable Parquet files, none to learn from, odd class names or several lists of them; with every
            bad sample if `strict`.
        StoreError: as import_parts does.

    """
    source = _read_folder(Path(root))
    classes = source.classes or ()
    return import_parts(
        folder,
        DatasetSpec(
            readable(source.root.resolve().name),
            "classification" if classes else "captions",
            classes,
            (PROMPT,) if classes else (),
            ("train", "test") if classes or source.splits["test"] else ("train",),
        ),
        list(_parts(source)),
        source.notes,
        **settings,
    )


def _read_folder(root: Path) -> _ParquetFolder:
    found = files_below(root)
    paths = [path for path in found.files if _is_table(path)]
    if not paths:
        msg = f"{root}: no Parquet files here; correct the path"
        raise UserError(msg)
    UserError.unless_none(fault for path in paths for fault in _file_faults(path))
    splits, notes = _splits(root, paths)
    classes = _classes(root, paths)
    if not splits["train"]:
        msg = f"{root}: only test files, no training files; add some"
        raise UserError(msg)
    UserError.unless_none(class_names.faults_of(classes or (), str(root)))
    notes += class_names.notes_of(classes or (), readable(str(root)))
    notes += _lost_shards(splits)
    read = {*paths, root / CLASSES}
    others = [path for path in found.files if path not in read]
    notes += notes_on(readable(str(root)), hidden=_names(root, found.hidden), others=_names(root, others))
    return _ParquetFolder(root, splits, None if classes is None else tuple(classes), tuple(notes))


def _names(root: Path, paths: Iterable[Path]) -> list[str]:
    return [readable(str(path.relative_to(root))) for path in paths]


def _tables(root: Path) -> list[Path]:
    return [path for path in files_below(root).files if _is_table(path)]


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ENDING


def _splits(root: Path, paths: Sequence[Path]) -> tuple[dict[str, list[Path]], list[SampleFault]]:
    """The files of each split, and a note on those of a validation split."""
    splits: dict[str, list[Path]] = {split: [] for split in (*SPLIT_NAMES, "")}
    for path in paths:
        splits[_split_of(path.relative_to(root))].append(path)
    unnamed, validation = splits.pop(""), splits.pop("validation")
    kinds: dict[str, list[Path]] = {}
    if unnamed and (splits["train"] or splits["test"] or validation):
        kinds["file that is named after no split, used for training"] = unnamed
    if validation:
        use = "not read, as there is a test split" if splits["test"] else "used as the test split"
        kinds[f"file of a validation split, {use}"] = validation
    chosen = {"train": sorted([*splits["train"], *unnamed]), "test": splits["test"] or validation}
    return chosen, [note(kind, readable(str(root)), _names(root, some)) for kind, some in kinds.items()]


def _lost_shards(splits: Mapping[str, Sequence[Path]]) -> Iterator[SampleFault]:
    """A fault for each file that the numbers in the others' names, as in train-00000-of-00002, say there is."""
    for split, paths in splits.items():
        sets: dict[tuple[Path, int], set[int]] = {}
        for path in paths:
            if found := SHARD.search(path.name):
                start = path.with_name(path.name[: found.start()])
                sets.setdefault((start, int(found["count"])), set()).add(int(found["number"]))
        for (start, count), numbers in sets.items():
            for number in sorted(set(range(count)) - numbers):
                where = readable(f"{start}-{number:05d}-of-{count:05d}{ENDING}")
                yield SampleFault("missing file", split, where, "missing, as the others' names say; add or rename them")


def _split_of(path: Path) -> str:
    """The split whose name is a word of the file's name, or else of the nearest folder's; an empty text if none is."""
    for name in reversed(path.parts):
        words = set(re.split("[^a-z]+", name.lower()))
        for split, names in SPLIT_NAMES.items():
            if words & names:
                return split
    return ""


def _file_faults(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"{path}: {LEADS_NOWHERE}"
        return
    try:
        schema = pq.read_schema(path)
    except FAILURES:
        yield f"{path}: not a readable Parquet file; replace or remove it"
        return
    if "image" not in schema.names:
        yield f"{path}: no column image, only {', '.join(schema.names)}; rename the column that holds the images"
    if not {"label", "captions", "caption"} & set(schema.names):
        yield f"{path}: no column label, captions or caption; add one"


def _classes(root: Path, paths: Sequence[Path]) -> list[str] | None:
    listed = root / CLASSES
    names = _same_names(root, paths)
    if listed.is_file():
        return _listed(listed)
    if names is None:
        labels = (label for path in paths for run in _runs(path) for label in _labels(run))
        names = sorted({label for label in labels if isinstance(label, str)})
    return names or None


def _same_names(root: Path, paths: Sequence[Path]) -> list[str] | None:
    """The class names in the metadata of the files; None if there are none. Raises UserError if they differ."""
    files: dict[tuple[str, ...] | None, list[Path]] = {}
    for path in paths:
        names = _hub_names(path)
        files.setdefault(None if names is None else tuple(names), []).append(path)
    if len(files) > 1:
        kinds = "; ".join(f"{some[0].relative_to(root)}: {_shown(names)}" for names, some in files.items())
        raise UserError(f"{root}: the class names of its files differ ({kinds}); import them one at a time")
    same = next(iter(files))
    return None if same is None else list(same)


def _shown(names: Sequence[str] | None) -> str:
    return "none" if names is None else f"{len(names)}, such as {', '.join(names[:SHOWN])}"


def _hub_names(path: Path) -> list[str] | None:
    """The class names that the Hugging Face library writes into a file's metadata."""
    try:
        metadata = parse_json((pq.read_schema(path).metadata or {}).get(b"huggingface", b"{}"))
        return [str(name) for name in metadata["info"]["features"]["label"]["names"]]
    except (ValueError, KeyError, TypeError):
        return None


def _listed(path: Path) -> list[str]:
    try:
        classes = parse_json(read_at_most(path, JSON_BYTES))
    except (ValueError, OSError) as error:
        msg = f"{path}: not valid JSON ({error}); write a list of class names"
        raise UserError(msg) from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not classes:
        msg = f"{path}: not a list of class names; write one, in the order of the labels"
        raise UserError(msg)
    return classes


def _parts(source: _ParquetFolder) -> Iterator[_Part]:
    if source.splits["test"] or not source.classes:
        for split, paths in source.splits.items():
            yield from (_part(source, split, run, None) for path in paths for run in _runs(path))
        return
    runs = [run for path in source.splits["train"] for run in _runs(path)]
    seen: Counter[int] = Counter()
    for_test = [_for_test(source, run, seen) for run in runs]
    for split in ("train", "test"):
        yield from (_part(source, split, run, rows) for run, rows in zip(runs, for_test, strict=True))


def _part(source: _ParquetFolder, split: str, run: _Run, for_test: bytes | None) -> _Part:
    stamp = Path(run.path).stat()
    identity = f"{run} {stamp.st_ctime_ns} {stamp.st_size} {for_test!r} {source.classes}"
    return _Part(split, hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest(), source, run, for_test)


def _runs(path: Path) -> Iterator[_Run]:
    """The row groups of a file, as many together as make a shard."""
    metadata = pq.read_metadata(path)
    first, groups, rows = 0, [], 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= PART_SAMPLES or group == metadata.num_row_groups - 1:
            yield _Run(str(path), tuple(groups), first, rows)
            first, groups, rows = first + rows, [], 0


def _for_test(source: _ParquetFolder, run: _Run, seen: Counter[int]) -> bytes:
    """For each row of the run whether it is held out, given how many of each class came before."""
    chosen = bytearray()
    for written in _labels(run):
        label = source.number(written)
        chosen.append(label is not None and is_held_out(seen[label]))
        if label is not None:
            seen[label] += 1
    return bytes(chosen)


def _labels(run: _Run) -> Iterator[Any]:
    """The label of each row, as written. Raises UserError where they cannot be read: how rows are parted needs all."""
    try:
        for row in _rows(run, {"label"}):
            yield row.get("label")
    except FAILURES as error:
        raise UserError(f"{readable(run.path)}: damaged ({_first_line(error)}); replace the file") from error


def _rows(run: _Run, wanted: Collection[str]) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(run.path) as file:
        schema = file.schema_arrow
        columns = [name for name in schema.names if name in wanted]
        checked = [name for name in columns if name != IMAGE or not _is_plain(schema.field(name).type)]
        for group in run.groups:
            check_decoded(run.path, file.metadata, group, checked)
            rows = rows_at_once(file.metadata, group, columns, BATCH)
            for batch in file.iter_batches(rows, [group], columns, use_threads=False):
                yield from batch.to_pylist()


def _is_plain(image: pa.DataType) -> bool:
    """Whether a row has one value of that type, so that rows read one at a time are no more than the file's pages."""
    if pa.types.is_struct(image):
        return all(not pa.types.is_nested(field.type) for field in image)
    return not pa.types.is_nested(image)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _image(row: Mapping[str, Any]) -> Any:
    image = row.get("image")
    return image.get("bytes") if isinstance(image, dict) else image
