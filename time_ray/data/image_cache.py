"""Decoded images on a local disk: a test image is decoded once, and then read by every evaluation after it.

A piece is the images of some rows of a split, as uint8 squares, and a checksum over them and what they are of.
Pieces are written under a name of their own and then moved into place, so any number of processes may share a folder.
"""

import hashlib
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import PIL
from numpy.typing import NDArray

from time_ray.data.images import Pixels

log = logging.getLogger(__name__)

VERSION = 1  # bump when the same bytes would become other squares
SHARE_OF_FREE = 0.5  # of the free space of the disk may be taken
DRAFT_SECONDS = 3600.0  # a draft this old is of a process that was killed
CHECKSUM_BYTES = 4


class Piece(NamedTuple):
    """Some rows of a split of a dataset, named by its digest, as squares of `size` pixels a side."""

    dataset: str
    split: str
    size: int
    rows: NDArray[np.int64]

    @property
    def num_bytes(self) -> int:
        """What its images take."""
        return len(self.rows) * self.size**2 * 3

    @property
    def path(self) -> Path:
        """Where it lies in the folder; images may differ between versions of the library that decodes them."""
        rows = hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()[:32]
        return Path(f"{self.dataset[:32]}-{self.split}-{self.size}-v{VERSION}-{PIL.__version__}", f"{rows}.pixels")


class Squares:
    """Pieces in a folder. Without room for them images are decoded each time, which `say` tells once."""

    def __init__(self, folder: Path, say: Callable[[str], None] = log.info) -> None:
        self._folder = folder
        self._say = say
        self._keeps = True

    def expect(self, pieces: Iterable[Piece]) -> None:
        """These will be asked for: those that are missing are kept if the disk has room for them all."""
        missing = sum(piece.num_bytes for piece in pieces if not (self._folder / piece.path).exists())
        if not missing or not self._keeps:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_drafts()
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            self._give_up(str(error))
            return
        text = f"{missing / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        if missing > SHARE_OF_FREE * free:
            self._give_up(text)
        else:
            self._say(f"decoded test images are kept in {self._folder}: {text}")

    def block(self, piece: Piece, decode: Callable[[NDArray[np.int64]], Pixels]) -> Pixels:
        """The images of the piece: from the disk if they are whole there, decoded and kept if not."""
        found = self._read(piece)
        if found is None:
            found = np.ascontiguousarray(decode(piece.rows))
            self._write(piece, found)
        return found

    def _read(self, piece: Piece) -> Pixels | None:
        """The images, mapped into memory; None if they are not there, or not as they were written."""
        path = self._folder / piece.path
        try:
            if path.stat().st_size == piece.num_bytes + CHECKSUM_BYTES:
                content = np.memmap(path, dtype=np.uint8, mode="c")  # torch takes no read-only arrays
                pixels = content[: piece.num_bytes].reshape(len(piece.rows), piece.size, piece.size, 3)
                if content[piece.num_bytes :].tobytes() == _checksum(piece, pixels):
                    return pixels
            log.warning("%s: damaged; its images are decoded again", path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: cannot be read (%s); its images are decoded", path, error)
        return None

    def _write(self, piece: Piece, pixels: Pixels) -> None:
        if not self._keeps:
            return
        path = self._folder / piece.path
        draft = path.with_name(f"{uuid4().hex}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("xb") as file:
                file.write(pixels.data)
                file.write(_checksum(piece, pixels))
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        self._keeps = False
        self._say(
            f"decoded test images are not kept in {self._folder} ({why}), so each evaluation decodes them; "
            "free space, or let TIME_RAY_CACHE name another folder"
        )

    def _remove_drafts(self) -> None:
        for draft in self._folder.glob("*/*.draft"):
            if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                draft.unlink(missing_ok=True)


def _checksum(piece: Piece, pixels: Pixels) -> bytes:
    start = zlib.crc32(str(piece.path).encode())
    return zlib.crc32(pixels.data, start).to_bytes(CHECKSUM_BYTES, "little")
