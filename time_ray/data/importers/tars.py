"""Tar files of images, as strangers may have made them: members are read where they lie, and never unpacked.

What is no plain file below the tar's own folder is named, not read; so is a tar that is cut off or makes no sense.
Python's tarfile takes a damaged header for the end and may hang on a hostile one, so only its header parser is used.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from time_ray.data.importers.samples import ByteRange, readable
from time_ray.limits import IMAGE_BYTES, TAR_HEADER_BYTES

BLOCK = 512
CHUNK = 1024**2
GZIP = b"\x1f\x8b"
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}  # not unpacked here
NAMES = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
PAX = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
PLAIN = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
WITHOUT_DATA = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "pipe",
    tarfile.DIRTYPE: "folder",
}


class TarFault(NamedTuple):
    """A member that is not read, or a tar that is not read to its end: a kind that can be counted, and the reason."""

    name: str
    kind: str
    detail: str


class Member(NamedTuple):
    """A plain file in a tar."""

    name: str
    size: int
    offset: int


class _DamageError(Exception):
    """The tar cannot be read any further."""


def is_inside(name: str) -> bool:
    """Whether the path of that name stays below the folder that it is relative to."""
    path = PurePosixPath(name)
    return bool(path.parts) and "\0" not in name and not path.is_absolute() and ".." not in path.parts


def index(path: Path) -> tuple[dict[str, ByteRange], list[TarFault]]:
    """Where each plain file of an uncompressed tar lies, by name, and what is wrong in it. Only headers are read."""
    places: dict[str, ByteRange] = {}
    tar_faults: list[TarFault] = []
    found = path.stat()
    with path.open("rb") as file:
        for member in _members(_Reader(file, found.st_size)):
            if isinstance(member, TarFault):
                tar_faults.append(member)
            else:
                places[member.name] = ByteRange(str(path), found.st_ctime_ns, member.size, member.offset)
    return places, tar_faults


def contents(path: Path) -> Iterator[tuple[str, bytes] | TarFault]:
    """Name and bytes of each plain file, in order, of a tar that may be compressed with gzip. One is in memory."""
    with path.open("rb") as file:
        start = file.read(BLOCK)
        packed = start.startswith(GZIP)
        other = next((name for mark, name in OTHERS.items() if start.startswith(mark)), None)
        if other:
            yield TarFault("", "tar in another compression", f"of {other}; pack it as a tar, alone or with gzip")
            return
        file.seek(0)
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        reader = _Reader(stream, None if packed else path.stat().st_size)
        for member in _members(reader):
            if isinstance(member, TarFault):
                yield member
            elif member.size > IMAGE_BYTES:
                yield TarFault(
                    member.name, "image too large", f"{member.size} bytes, more than {IMAGE_BYTES}; remove it"
                )
            else:
                with suppress(_DamageError):  # the walk over the members meets it, too
                    yield member.name, reader.take(max(0, member.size))


@dataclass
class _Reader:
    """A stream that is read in order; `size` is None where it is compressed, and cannot be known."""

    file: IO[bytes]
    size: int | None
    at: int = 0

    def take(self, count: int) -> bytes:
        """The next bytes. Raises _DamageError if there are fewer."""
        try:
            data = self.file.read(count)
        except (OSError, EOFError, zlib.error) as error:
            msg = f"cannot be unpacked ({error})"
            raise _DamageError(msg) from error
        self.at += len(data)
        if len(data) < count:
            msg = "it ends too early"
            raise _DamageError(msg)
        return data

    def has_more(self) -> bool:
        """Whether anything but zeros comes soon after this; what follows a compressed stream does not count."""
        with suppress(OSError, EOFError, zlib.error):
            for _ in range(IMAGE_BYTES // CHUNK):
                data = self.file.read(CHUNK)
                if data.strip(b"\0"):
                    return True
                if not data:
                    break
        return False

    def go_to(self, position: int) -> None:
        """The next byte is the one at that position. Raises _DamageError if it has been read or cannot be reached."""
        if position < self.at:
            msg = "a size is below 0"
            raise _DamageError(msg)
        if self.size is not None:
            if position > self.size:
                msg = "it ends too early"
                raise _DamageError(msg)
            self.at = self.file.seek(position)
            return
        if position - self.at > IMAGE_BYTES + BLOCK:
            msg = "a member is too large to be unpacked"
            raise _DamageError(msg)
        while self.at < position:
            self.take(min(CHUNK, position - self.at))


def _members(reader: _Reader) -> Iterator[Member | TarFault]:
    extension = _Extension()
    try:
        while any(block := reader.take(BLOCK)):  # a block of zeros is the end
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if header.type in NAMES | PAX:
                extension.read(header, reader)
                continue
            name = readable(str(PurePosixPath(extension.name or header.name)))
            size = header.size if extension.size is None else extension.size
            size = 0 if header.type in WITHOUT_DATA else size
            start = reader.at
            fault = _member_fault(name, header.type, extension)
            if fault is None:
                yield Member(name, size, start)
            elif header.type != tarfile.DIRTYPE:
                yield fault
            extension = _Extension()
            reader.go_to(start + -(-size // BLOCK) * BLOCK)
        if reader.has_more():
            yield TarFault("", "data after the end", f"not read beyond byte {reader.at}, its end; join tars by tar -A")
    except (_DamageError, tarfile.HeaderError) as error:
        yield TarFault("", "damaged tar", f"not read beyond byte {reader.at}: {error}; replace it")


def _member_fault(name: str, kind: bytes, extension: "_Extension") -> TarFault | None:
    if kind in WITHOUT_DATA:
        return TarFault(name, "link or device", f"a {WITHOUT_DATA[kind]}, no plain file; not followed")
    if kind not in PLAIN or extension.is_sparse:
        return TarFault(name, "link or device", "of a kind that is not read; pack it as a plain file")
    if not is_inside(name):
        return TarFault(name, "unsafe path", "leads out of its folder; not read")
    return None


@dataclass
class _Extension:
    """What headers say about the member after them."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False

    def read(self, header: tarfile.TarInfo, reader: _Reader) -> None:
        """Also knows what this header says. Raises _DamageError if that makes no sense."""
        if not 0 <= header.size <= TAR_HEADER_BYTES:
            msg = "a header is too large"
            raise _DamageError(msg)
        data = reader.take(-(-header.size // BLOCK) * BLOCK)[: header.size]
        if header.type == tarfile.GNUTYPE_LONGNAME:
            self.name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif header.type in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
            self._pax(data)

    def _pax(self, data: bytes) -> None:
        """Records are `LENGTH KEY=VALUE` with a line end, and LENGTH counts all of it."""
        start = 0
        try:
            while start < len(data):
                space = data.index(b" ", start, start + 20)
                end = start + int(data[start:space])
                key, _, value = data[space + 1 : end - 1].partition(b"=")
                if key == b"path":
                    self.name = value.decode("utf-8", "surrogateescape")
                elif key == b"size":
                    self.size = int(value)
                self.is_sparse |= key.startswith(b"GNU.sparse.")
                start = data.index(b"\n", max(space, end - 1), end) + 1
        except ValueError as error:
            msg = "a header makes no sense"
            raise _DamageError(msg) from error
