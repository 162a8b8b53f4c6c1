"""Import of webdataset shards: tars in which files of one name, apart from their ending, are one sample."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

from time_ray.core.errors import UserError
from time_ray.data.dataset import Card
from time_ray.data.importers import tars
from time_ray.data.importers.captions import captions_of
from time_ray.data.importers.folder_files import is_hidden
from time_ray.data.importers.imagefolder import LEADS_NOWHERE, SUFFIXES
from time_ray.data.importers.pipeline import DatasetSpec, ImportSettings, import_parts
from time_ray.data.importers.sample_faults import SampleFault, notes_on
from time_ray.data.importers.samples import readable
from time_ray.data.shards import Row
from time_ray.limits import CAPTION_FILE_BYTES, TARS, parse_json

ENDINGS = (".tar", ".tar.gz", ".tgz")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
DOTS = "its sample is {} and its ending {}, all from the first dot on, which is none that is read; rename it"
IMAGE, TEXT, DATA = "image", ".txt", ".json"


def import_webdataset(shards: str | Path, folder: str | Path, **settings: Unpack[ImportSettings]) -> Card:
    """Write webdataset shards as a pool of images with captions.

    `shards` is a folder of tars, one tar, or a pattern as in `pool/{00000..00010}.tar`. A sample is an image with a
    .txt, or a .json that has `caption` or `captions`. Each shard becomes one, read in order. Bad samples and what a
    tar must not hold are left out, and named in the report.

    Raises:
        UserError: a shard is missing; with every bad sample if `strict`.
        StoreError: as import_parts does.

    """
    paths = shard_paths(str(shards))
    name = readable(
        re.sub(r"[{}]", "", paths[0].parent.resolve().name if len(paths) > 1 else paths[0].name.split(".")[0])
    )
    return import_parts(
        folder,
        DatasetSpec(name, "captions", (), (), ("train",)),
        [_part(path) for path in paths],
        _notes(Path(shards)),
        **settings,
    )


def names_shards(source: str) -> bool:
    """Whether that is how webdataset shards are named: a tar, a pattern for some, or a folder that holds one."""
    folder = Path(source)
    return _is_named_so(source) or (folder.is_dir() and bool(_tars(folder)))


def shard_paths(reference: str) -> list[Path]:
    """The tars that a folder, a path or a pattern with {first..last} names. Raises UserError if one is missing."""
    if Path(reference).is_dir():
        found = _tars(Path(reference))
        if not found:
            msg = f"{reference}: no tars here; correct the path"
            raise UserError(msg)
        UserError.unless_none(f"{path}: {LEADS_NOWHERE}" for path in found if not path.is_file())
        return found
    if Path(reference).is_file():  # whatever braces are in its path
        return [Path(reference)]
    paths = [Path(name) for name in _unfolded(reference)]
    UserError.unless_none(f"{path}: no such file; correct the path" for path in paths if not path.is_file())
    return paths


def _tars(folder: Path) -> list[Path]:
    named = (path for path in folder.iterdir() if _is_named_so(path.name) and not is_hidden(path.name))
    return sorted(path for path in named if not path.is_dir())


def _is_named_so(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _notes(folder: Path) -> list[SampleFault]:
    """What lies beside the tars of a folder, and is not read."""
    if not folder.is_dir():
        return []
    names = {path.name for path in folder.iterdir()} - {path.name for path in _tars(folder)}
    hidden, others = sorted(filter(is_hidden, names)), sorted(name for name in names if not is_hidden(name))
    return notes_on(readable(str(folder)), hidden=list(map(readable, hidden)), others=map(readable, others))


def _unfolded(pattern: str) -> Iterator[str]:
    ranges = [(int(first), int(last), len(first)) for first, last in BRACES.findall(pattern)]
    count = math.prod(max(0, last - first + 1) for first, last, _ in ranges)
    if not 0 < count <= TARS:
        msg = f"{pattern}: names {count} shards; write {{first..last}}, first to last"
        raise UserError(msg)
    between = re.split(r"\{\d+\.\.\d+\}", pattern)
    for numbers in product(*([f"{n:0{width}}" for n in range(first, last + 1)] for first, last, width in ranges)):
        yield "".join(chain.from_iterable(zip_longest(between, numbers, fillvalue="")))


def _part(path: Path) -> "_Part":
    found = path.stat()
    identity = f"{path.absolute()} {found.st_size} {found.st_ctime_ns}"
    return _Part(str(path), hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest(), found.st_size)


@dataclass(frozen=True)
class _Part:
    """The samples of one tar."""

    path: str
    key: str
    weight: int  # bytes
    split: str = "train"

    def read(self) -> Iterator[tuple[str, Row] | SampleFault]:
        """Each sample, or what is wrong with it or with the tar."""
        try:
            yield from self._samples()
        except OSError as error:
            yield self._fault("", "unreadable file", f"cannot be read ({error.strerror}); see to it")

    def _samples(self) -> Iterator[tuple[str, Row] | SampleFault]:
        name, files = "", dict[str, bytes]()
        hidden, others = list[str](), list[str]()
        for found in tars.contents(Path(self.path)):
            if isinstance(found, tars.TarFault):
                yield self._fault(found.name, found.kind, found.detail)
                continue
            member, data = found
            place, ending = _divided(member)
            if any(map(is_hidden, PurePosixPath(member).parts)):
                hidden.append(member)
                continue
            if place != name:
                yield from self._sample(name, files)
                name, files = place, {}
            if ending in SUFFIXES and IMAGE in files:
                yield self._fault(member, "second image", "its sample has an image already; name it otherwise")
            elif ending in SUFFIXES:
                files[IMAGE] = data
            elif ending in {TEXT, DATA}:
                files[ending] = data
            elif PurePosixPath(ending).suffix in {*SUFFIXES, TEXT, DATA}:
                yield self._fault(member, "dots in a name", DOTS.format(place, ending))
            else:
                others.append(member)
        yield from self._sample(name, files)
        yield from notes_on(readable(self.path), hidden=hidden, others=others)

    def _sample(self, name: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, Row] | SampleFault]:
        captions, odd = _captions(files)
        if files and IMAGE not in files:
            yield self._fault(name, "no image", "no image, only text; add one, or remove it")
        if files and not captions:
            kind = "odd caption" if odd else "no caption"
            yield self._fault(name, kind, f"no caption in a {TEXT} or {DATA}; add one, or remove the sample")
        if captions and IMAGE in files:
            if odd:
                yield self._fault(name, "odd caption", "a caption is empty or no text; left out; correct it", kept=True)
            where = f"{readable(self.path)}: {name}"
            yield where, Row(files[IMAGE], captions, -1, readable(f"{Path(self.path).name}/{name}"))

    def _fault(self, name: str, kind: str, detail: str, *, kept: bool = False) -> SampleFault:
        where = f"{readable(self.path)}: {name}" if name else readable(self.path)
        return SampleFault(kind, self.split, where, detail, kept)


def _divided(member: str) -> tuple[str, str]:
    """What names the sample, and the ending that says which part of it this is: all from the first dot on."""
    path = PurePosixPath(member)
    stem, dot, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else member, (dot + ending).lower()


def _captions(files: Mapping[str, bytes]) -> tuple[tuple[str, ...], bool]:
    """The captions in the text, or else in the data; and whether something in either is none."""
    odd = False
    for ending, read in ((TEXT, _of_text), (DATA, _of_data)):
        if ending in files:
            try:
                captions, is_odd = captions_of(read(files[ending][:CAPTION_FILE_BYTES]))
            except ValueError:
                captions, is_odd = (), True
            odd |= is_odd
            if captions:
                return captions, odd
    return (), odd


def _of_text(data: bytes) -> str:
    return data.decode("utf-8-sig").strip()


def _of_data(data: bytes) -> Any:
    fields = parse_json(data)
    return fields.get("caption", fields.get("captions")) if isinstance(fields, dict) else None
