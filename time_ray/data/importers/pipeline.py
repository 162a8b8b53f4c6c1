"""Importing: parts of a source become shards, in processes of their own; a killed import goes on where it was.

Every finished shard has a note in the folder `.import`, with its digest and what was left out. The card comes last.
"""

import fcntl
import glob
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypedDict
from uuid import uuid4

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from time_ray.core.errors import StoreError, UserError
from time_ray.data.dataset import CARD, Card, Dataset, Kind, SplitInfo, content_digest, seal_card
from time_ray.data.importers.image_checks import image_fault, pillow_quiet
from time_ray.data.importers.sample_faults import REPORT, SampleFault, read_report, write_report
from time_ray.data.importers.worker_processes import run_jobs
from time_ray.data.shards import DIGEST_BYTES, Row, write_shard
from time_ray.limits import JSON_BYTES, parse_json, read_at_most
from time_ray.plain_names import is_plain
from time_ray.whole_files import file_digest, replacing

PROMPT = "a photo of a {}."  # the class prompt, and the caption where there is none
EVERY = 5
RULES = 2  # raise it when the same source becomes other rows
WORK = ".import"


class DatasetSpec(NamedTuple):
    """What a dataset will be."""

    name: str
    kind: Kind
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    splits: tuple[str, ...]


class Part(Protocol):
    """What becomes one shard. It goes to another process, so it holds no data, only where the data lies."""

    @property
    def split(self) -> str:
        """The split that it belongs to."""

    @property
    def key(self) -> str:
        """A hex digest that changes when what it will read does."""

    @property
    def weight(self) -> int:
        """Its share of the work, in units of its own kind."""

    def read(self) -> Iterator[tuple[str, Row] | SampleFault]:
        """Each sample with the place it comes from, or why there is none; images are not looked at yet."""


class FinishedPart(NamedTuple):
    """A finished part: its file (None: not one good sample), the file's digest, and those of its rows."""

    file: str | None
    sha256: str
    digests: bytes
    faults: tuple[SampleFault, ...]


class ImportProgress(NamedTuple):
    """How far an import is: samples taken so far, and the share of all work that is done."""

    samples: int
    share: float


def no_progress(progress: ImportProgress) -> None:
    """Nobody watches."""


def is_held_out(position: int) -> bool:
    """Whether the sample at that position of its class is for testing, where a source has no test split: 20 %."""
    return position % EVERY == 1


class ImportSettings(TypedDict, total=False):
    """How an import is run, which changes nothing of what it makes."""

    strict: bool  # true, if it is not said: leave nothing out, name every bad sample, and make no dataset of them
    jobs: int  # processes; one, if it is not said
    progress: Callable[[ImportProgress], None]


def import_parts(
    folder: str | Path,
    spec: DatasetSpec,
    parts: Sequence[Part],
    faults: Sequence[SampleFault],
    *,
    strict: bool = True,
    jobs: int = 1,
    progress: Callable[[ImportProgress], None] = no_progress,
) -> Card:
    """The folder holds the dataset and a report of all faults, which came with the parts or are found in them.

    The same import again finishes what is not finished, and returns at once if nothing is left to do.

    Args:
        folder: where the dataset is written: new, empty, or with an import of the same source in it.
        spec: what the dataset will be.
        parts: each becomes a shard, in this order, split by split.
        faults: what was wrong with samples that are in no part.
        strict: leave nothing out: every bad sample is an error. What is done by then stays, for an import that is not.
        jobs: processes.
        progress: hears how far it is after every part.

    Returns:
        The card of the dataset.

    Raises:
        UserError: with every fault if `strict`; where a split has faults and not one good sample; where the folder
            holds something else.
        StoreError: where the folder cannot be written, or a worker process was killed.

    """
    folder = Path(folder).absolute()
    source = _source(spec, parts, faults)
    _check_free(folder)
    if not (folder / CARD).is_file():
        with _alone(folder):
            if not (folder / CARD).is_file():  # another process may have been faster
                _finish(folder, spec, source, parts, faults, strict, jobs, progress)
    card = Dataset.open(folder).card
    if card.source != source:
        msg = f"{folder}: holds another dataset already ({card.name}); give another folder, or remove it"
        raise UserError(msg)
    if strict:
        UserError.unless_none(fault.line for fault in read_report(folder) if not fault.is_note)
    return card


def _finish(
    folder: Path,
    spec: DatasetSpec,
    source: str,
    parts: Sequence[Part],
    faults: Sequence[SampleFault],
    strict: bool,
    jobs: int,
    progress: Callable[[ImportProgress], None],
) -> None:
    finished = _finished_parts(folder, parts, jobs, progress)
    found = [*faults, *(fault for note in finished for fault in note.faults)]
    write_report(folder, found)
    if strict:
        UserError.unless_none(fault.line for fault in found if not fault.is_note)
    splits: dict[str, SplitInfo] = {}
    digests: dict[str, list[bytes]] = {}
    for split in spec.splits:
        of_split = [note for part, note in zip(parts, finished, strict=True) if part.split == split]
        digests[split] = [note.digests for note in of_split]
        rows = sum(map(len, digests[split])) // DIGEST_BYTES
        splits[split] = SplitInfo(shards=tuple(note.file for note in of_split if note.file), rows=rows)
    UserError.unless_none(_nothing_in(folder, spec, splits, found))
    card = Card(
        name=spec.name,
        kind=spec.kind,
        classes=spec.classes,
        templates=spec.templates,
        splits=splits,
        digest=content_digest(spec.kind, spec.classes, spec.templates, digests),
        source=source,
    )
    _remove_strangers(folder, splits)
    with replacing(folder / CARD, folder / WORK / f"{CARD}-{uuid4().hex}") as draft:
        draft.write_bytes(seal_card(str(folder), LocalFileSystem(), card).model_dump_json(indent=2).encode())
    shutil.rmtree(folder / WORK)


def _nothing_in(
    folder: Path, spec: DatasetSpec, splits: Mapping[str, SplitInfo], faults: Sequence[SampleFault]
) -> Iterator[str]:
    """A line for each split of which nothing could be imported, or for a source that holds nothing."""
    empty = [split for split, info in splits.items() if not info.rows]
    reasons = {split: [fault for fault in faults if fault.split == split] for split in empty}
    for split, found in reasons.items():
        if found:
            text = f"not one sample of split {split} could be imported ({found[0].line})"
            yield f"{folder}: {text}; {REPORT} there names every reason"
    if len(empty) == len(splits) and not any(reasons.values()):
        yield f"{spec.name}: holds not one sample; correct the path, or see how the source was made"


def _source(spec: DatasetSpec, parts: Sequence[Part], faults: Sequence[SampleFault]) -> str:
    whole = [RULES, spec, [(part.split, part.key) for part in parts], [f for f in faults if not f.is_note]]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _check_free(folder: Path) -> None:
    is_ours = (folder / CARD).is_file() or (folder / WORK).is_dir()
    if not is_ours and folder.is_dir() and any(folder.iterdir()):
        msg = f"{folder}: holds other files; give a new or an empty folder"
        raise UserError(msg)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process imports into the folder; waits for one that does. Ends with the process, however that ends."""
    try:
        (folder / WORK).mkdir(parents=True, exist_ok=True)
        lock = (folder / WORK / "lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); give another folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _finished_parts(
    folder: Path, parts: Sequence[Part], jobs: int, progress: Callable[[ImportProgress], None]
) -> Sequence[FinishedPart]:
    """The parts in order, each with its shard in the folder."""
    work = [(folder, f"{part.split}-{number:05d}-{part.key[:16]}", part) for number, part in enumerate(parts)]
    finished: dict[int, FinishedPart] = {}
    samples, weight, all_weight = 0, 0, max(1, sum(part.weight for part in parts))
    for number, note in run_jobs(_shard, work, jobs):
        finished[number] = note
        samples += len(note.digests) // DIGEST_BYTES + sum(not fault.kept for fault in note.faults)
        weight += parts[number].weight
        progress(ImportProgress(samples, weight / all_weight))
    return [finished[number] for number in range(len(parts))]


def _shard(job: tuple[Path, str, Part]) -> FinishedPart:
    """The shard of the part is there, and so is its note: found whole from an earlier import, or made now."""
    folder, stem, part = job
    try:
        return _read_note(folder, stem) or _make(folder, stem, part)
    except OSError as error:
        msg = f"{folder}: cannot be written: {error}; free space or rights, then run it again"
        raise StoreError(msg) from error


def _read_note(folder: Path, stem: str) -> FinishedPart | None:
    """The note of a shard whose bytes are those it was finished with."""
    try:
        raw: dict[str, Any] = parse_json(read_at_most(folder / WORK / f"{stem}.json", JSON_BYTES))
        faults = tuple(SampleFault(**fault) for fault in raw["faults"])
        note = FinishedPart(raw["file"], raw["sha256"], bytes.fromhex(raw["digests"]), faults)
        whole = note.file is None or (is_plain(note.file) and file_digest(folder / note.file) == note.sha256)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return note if whole else None


def _make(folder: Path, stem: str, part: Part) -> FinishedPart:
    faults: list[SampleFault] = []
    started = folder / WORK / f"{stem}-{uuid4().hex}"
    with pa.OSFile(str(started), "wb") as stream, pillow_quiet():
        digests = write_shard(stream, _whole_rows(part, faults))
    sha256 = file_digest(started)
    if digests:
        started.replace(folder / f"{stem}.parquet")
    else:
        started.unlink()
    note = FinishedPart(f"{stem}.parquet" if digests else None, sha256, digests, tuple(faults))
    raw = note._asdict() | {"digests": digests.hex(), "faults": [fault._asdict() for fault in faults]}
    with replacing(folder / WORK / f"{stem}.json") as draft:
        draft.write_bytes(json.dumps(raw).encode())
    return note


def _whole_rows(part: Part, faults: list[SampleFault]) -> Iterator[Row]:
    """The rows of the part with a whole image; why the others are not is added to the faults."""
    for found in part.read():
        if isinstance(found, SampleFault):
            faults.append(found)
            continue
        where, row = found
        damage = image_fault(row.image)
        if damage is None:
            yield row
        else:
            detail = f"not a readable image ({damage.detail}); replace or remove it"
            faults.append(SampleFault(damage.kind, part.split, where, detail))


def _remove_strangers(folder: Path, splits: Mapping[str, SplitInfo]) -> None:
    """Shards that an import of another state of the source has left behind are gone."""
    for split, info in splits.items():
        for path in folder.glob(f"{glob.escape(split)}-{'[0-9]' * 5}-{'[0-9a-f]' * 16}.parquet"):
            if path.name not in info.shards:
                path.unlink()
