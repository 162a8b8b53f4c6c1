"""Samples that a source can list: where each image lies, and what is said of it."""

import hashlib
import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from time_ray.data.importers.sample_faults import SampleFault
from time_ray.data.shards import Row
from time_ray.limits import IMAGE_BYTES

PART_SAMPLES = 2048


class ByteRange(NamedTuple):
    """Where bytes lie: a whole file, or a run of one. `stamp` changes whenever the file is written."""

    path: str
    stamp: int
    size: int
    offset: int = 0

    @classmethod
    def of_file(cls, path: Path) -> "ByteRange | None":
        """The place of that file; None if there is no plain file."""
        try:
            found = path.stat()
        except (OSError, ValueError):  # a name with a null character is a ValueError
            return None
        return cls(str(path), found.st_ctime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def read(self) -> bytes:
        """The bytes, or as many as show that there are too many."""
        with open(self.path, "rb") as file:  # noqa: PTH123 - a Path takes longer than the read
            file.seek(self.offset)
            return file.read(min(self.size, IMAGE_BYTES + 1))


class Sample(NamedTuple):
    """One sample by reference."""

    place: ByteRange
    captions: tuple[str, ...]
    label: int
    key: str
    where: str  # for people


def sample_of_file(
    path: Path, captions: tuple[str, ...], label: int, *, split: str, key: str = ""
) -> Sample | SampleFault:
    """The sample whose image is that file, or the fault if there is none.

    `label` is its class, -1 for none; `key` says in the dataset where it came from, and is the file's name at first.
    """
    where, place = readable(str(path)), ByteRange.of_file(path)
    if place is None:
        return SampleFault("missing file", split, where, "no plain file, or a link to none; replace or remove it")
    return Sample(place, captions, label, key or readable(path.name), where)


@dataclass(frozen=True)
class SamplePart:
    """Samples that become one shard."""

    split: str
    key: str
    samples: tuple[Sample, ...]

    @property
    def weight(self) -> int:
        """How many samples."""
        return len(self.samples)

    def read(self) -> Iterator[tuple[str, Row] | SampleFault]:
        """Each sample, or why it cannot be read."""
        for sample in self.samples:
            try:
                data = sample.place.read()
            except OSError as error:
                yield SampleFault("unreadable file", self.split, sample.where, f"cannot be read ({error}); see to it")
            else:
                yield sample.where, Row(data, sample.captions, sample.label, sample.key)


def sample_parts(found: Mapping[str, Iterable[Sample | SampleFault]]) -> tuple[list[SamplePart], list[SampleFault]]:
    """The samples of each split in runs of one shard each, in order, and all faults among them."""
    parts: list[SamplePart] = []
    faults: list[SampleFault] = []
    for split, each in found.items():
        samples: list[Sample] = []
        for one in each:
            samples.append(one) if isinstance(one, Sample) else faults.append(one)
        runs = [tuple(samples[start : start + PART_SAMPLES]) for start in range(0, len(samples), PART_SAMPLES)]
        parts += [SamplePart(split, hashlib.sha256(json.dumps(run).encode()).hexdigest(), run) for run in runs]
    return parts, faults


def readable(name: str) -> str:
    """The name of a file as text that any reader takes, whatever bytes it is made of."""
    return name.encode("utf-8", "backslashreplace").decode()
