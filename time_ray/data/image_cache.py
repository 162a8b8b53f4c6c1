"""Decoded images on a local disk: a test image is decoded once, and then read by every evaluation after it.

A block is the images of some rows of a split, as uint8 squares, and a checksum over them and what they are of.
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

from time_ray.core.preprocessing import Resizing
from time_ray.core.quantities import size
from time_ray.data.images import Pixels
from time_ray.whole_files import replacing

log = logging.getLogger(__name__)

VERSION = 2  # bump when the same bytes would become other squares
SHARE_OF_FREE = 0.5  # of the free space of the disk may be taken
DRAFT_SECONDS = 3600.0  # a draft this old is of a process that was killed
CHECKSUM_BYTES = 4


class ImageBlock(NamedTuple):
    """Some rows of a split of a dataset, named by its digest, as squares that were made in one way."""

    dataset: str
    split: str
    resizing: Resizing
    rows: NDArray[np.int64]

    @property
    def num_bytes(self) -> int:
        """What its images take."""
        return len(self.rows) * self.resizing.size**2 * 3

    @property
    def path(self) -> Path:
        """Where it lies in the folder; images may differ between versions of the library that decodes them."""
        rows = hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()[:32]
        return Path(f"{self.dataset[:32]}-{self.split}-{self.resizing}-v{VERSION}-{PIL.__version__}", f"{rows}.pixels")


class ImageCache:
    """Pieces in a folder. Without room for them images are decoded each time, which `say` tells once."""

    def __init__(self, folder: Path, say: Callable[[str], None] = log.info) -> None:
        self._folder = folder
        self._say = say
        self._enabled = True

    def expect(self, blocks: Iterable[ImageBlock]) -> None:
        """These will be asked for: those that are missing are kept if the disk has room for them all."""
        missing = sum(block.num_bytes for block in blocks if not (self._folder / block.path).exists())
        if not missing or not self._enabled:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_drafts()
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            self._disable(str(error))
            return
        text = f"{size(missing)}, {size(free)} are free"
        if missing > SHARE_OF_FREE * free:
            self._disable(text)
        else:
            self._say(f"decoded test images are kept in {self._folder}: {text}")

    def get(self, block: ImageBlock, decode: Callable[[NDArray[np.int64]], Pixels]) -> Pixels:
        """The images of the block: from the disk if they are whole there, decoded and kept if not."""
        found = self._read(block)
        if found is None:
            found = np.ascontiguousarray(decode(block.rows))
            self._write(block, found)
        return found

    def _read(self, block: ImageBlock) -> Pixels | None:
        """The images, mapped into memory; None if they are not there, or not as they were written."""
        path = self._folder / block.path
        try:
            if path.stat().st_size == block.num_bytes + CHECKSUM_BYTES:
                content = np.memmap(path, dtype=np.uint8, mode="c")  # torch takes no read-only arrays
                side = block.resizing.size
                pixels = content[: block.num_bytes].reshape(len(block.rows), side, side, 3)
                if content[block.num_bytes :].tobytes() == _checksum(block, pixels):
                    return pixels
            log.warning("%s: damaged; its images are decoded again", path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: cannot be read (%s); its images are decoded", path, error)
        return None

    def _write(self, block: ImageBlock, pixels: Pixels) -> None:
        if not self._enabled:
            return
        path = self._folder / block.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, path.with_name(f"{uuid4().hex}.draft")) as draft, draft.open("xb") as file:
                file.write(pixels.data)
                file.write(_checksum(block, pixels))
        except OSError as error:
            self._disable(str(error))

    def _disable(self, why: str) -> None:
        self._enabled = False
        self._say(
            f"decoded test images are not kept in {self._folder} ({why}), so each evaluation decodes them; "
            "free space, or let TIME_RAY_CACHE name another folder"
        )

    def _remove_drafts(self) -> None:
        for draft in self._folder.glob("*/*.draft"):
            if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                draft.unlink(missing_ok=True)


def _checksum(block: ImageBlock, pixels: Pixels) -> bytes:
    start = zlib.crc32(str(block.path).encode())
    return zlib.crc32(pixels.data, start).to_bytes(CHECKSUM_BYTES, "little")
