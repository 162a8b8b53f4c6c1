"""Verifying a dataset: everything is read again, every image decoded, and the digest made anew."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from time_ray.core.errors import CellError
from time_ray.data.dataset import Card, Dataset, content_digest
from time_ray.data.importers.image_checks import image_fault, pillow_quiet
from time_ray.data.importers.pipeline import ImportProgress, no_progress
from time_ray.data.importers.worker_processes import run_jobs
from time_ray.data.shards import DIGEST_BYTES, Row, row_digest


class Verified(NamedTuple):
    """What was read, and everything that is not as it should be."""

    images: int
    num_bytes: int  # of images
    faults: tuple[str, ...]


class _Job(NamedTuple):
    folder: Path
    split: str
    shard: int


class _Read(NamedTuple):
    digests: bytes
    num_bytes: int
    faults: tuple[str, ...]


def verify(folder: str | Path, *, jobs: int = 1, progress: Callable[[ImportProgress], None] = no_progress) -> Verified:
    """Every row of the dataset has been read. Raises UserError if there is no dataset, or one that lacks files."""
    folder = Path(folder).absolute()
    dataset = Dataset.open(folder)
    work = [
        _Job(folder, name, shard) for name in dataset.card.splits for shard in range(len(dataset.split(name).shards))
    ]
    found: dict[int, _Read] = {}
    images = 0
    for number, read in run_jobs(_read, work, jobs):
        found[number] = read
        images += len(read.digests) // DIGEST_BYTES
        progress(ImportProgress(images, len(found) / len(work)))
    reads = [found[number] for number in range(len(work))]
    faults = [fault for read in reads for fault in read.faults]
    card = dataset.card
    digests = {
        split: [read.digests for job, read in zip(work, reads, strict=True) if job.split == split]
        for split in card.splits
    }
    if not faults and content_digest(card.kind, card.classes, card.templates, digests) != card.digest:
        faults.append(f"{folder}: its content has not the digest that its card names; import the dataset again")
    return Verified(images, sum(read.num_bytes for read in reads), tuple(faults))


def _read(job: _Job) -> _Read:
    dataset = Dataset.open(job.folder)
    digests, num_bytes, faults = bytearray(), 0, list[str]()
    try:
        with pillow_quiet():
            for row in dataset.split(job.split).rows(job.shard):
                faults += [f"{job.folder} {job.split}: {row.key}: {fault}" for fault in _faults(dataset.card, row)]
                digests += row_digest(row)
                num_bytes += len(row.image)
    except CellError as error:
        faults.append(str(error))
    return _Read(bytes(digests), num_bytes, tuple(faults))


def _faults(card: Card, row: Row) -> list[str]:
    damage = image_fault(row.image)
    faults = [f"not a readable image ({damage.detail}); import the dataset again"] if damage else []
    if not -1 <= row.label < len(card.classes):
        faults.append(f"label {row.label} is outside the {len(card.classes)} classes; import the dataset again")
    return faults
