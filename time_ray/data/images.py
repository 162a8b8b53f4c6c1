"""Images of a split: decoded, resized to the model's squares, and kept where they are small."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from time_ray.core.errors import CellError
from time_ray.core.preprocessing import Resizing
from time_ray.data.dataset import Split
from time_ray.data.decoding import decode
from time_ray.limits import IMAGE_PIXELS, TooMuchError

Pixels = NDArray[np.uint8]  # [height, width, 3]

KEPT_SIDE = 64  # images up to this many pixels a side are decoded once in a process
KEPT_BYTES = 256 * 1024**2  # in one split


def fit(image: Image.Image, resizing: Resizing) -> Image.Image:
    """The image as a square: pixel for pixel as open_clip makes it for inference; itself if it is one of that size.

    Raises TooMuchError for one that is so narrow that it would grow beyond all bounds before it is cut.
    """
    size = resizing.size
    if image.size == (size, size):
        return image
    width, height = _scaled(*image.size, resizing)
    if width * height > IMAGE_PIXELS:
        raise TooMuchError(f"{image.width} × {image.height} pixels would be resized to {width} × {height}")
    scaled = image.resize((width, height), Image.Resampling[resizing.interpolation.upper()])
    if resizing.mode == "longest":
        square = Image.new("RGB", (size, size), (resizing.fill,) * 3)
        square.paste(scaled, ((size - scaled.width) // 2, (size - scaled.height) // 2))
        return square
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return scaled.crop((left, top, left + size, top + size))


def _scaled(width: int, height: int, resizing: Resizing) -> tuple[int, int]:
    """Width and height after resizing, before anything is cut off or added."""
    size = resizing.size
    if resizing.mode == "squash":
        return size, size
    if resizing.mode == "shortest":
        short = min(width, height)
        return int(size * width / short), int(size * height / short)
    ratio = max(width / size, height / size)  # rounded as timm does; a line of pixels stays one
    return max(1, round(width / ratio)), max(1, round(height / ratio))


class Decoded:
    """The decoded images of a split, resized to squares if it is said how.

    Small ones are decoded once for as long as the split lives, whichever object of this class reads them. With
    several threads images are decoded side by side: Pillow lets other threads run while it decodes and resizes.
    """

    def __init__(self, split: Split, resizing: Resizing | None = None, *, threads: int = 1) -> None:
        self._split = split
        self._resizing = resizing
        self._threads = threads
        kept = _kept.setdefault(split, {})
        if resizing not in kept:
            kept[resizing] = _Kept(np.zeros(len(split), dtype=bool))
        self._memory = kept[resizing]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> list[Pixels]:
        """The images of those rows, in that order. Raises CellError, naming the row, for a broken one."""
        rows = np.asarray(indices, dtype=np.int64)
        fresh = self._load(rows)
        return [fresh[row] if row in fresh else self._memory.kept[row] for row in rows.tolist()]

    def block(self, rows: NDArray[np.int64]) -> Pixels:
        """The images of ascending rows, as [count, height, width, 3]; not copied where they are kept side by side."""
        fresh = self._load(rows)
        if not self._memory.has[rows].all():
            return np.stack([fresh[row] if row in fresh else self._memory.kept[row] for row in rows.tolist()])
        consecutive = rows[-1] - rows[0] + 1 == len(rows)
        return self._memory.kept[rows[0] : rows[-1] + 1] if consecutive else self._memory.kept[rows]

    def _load(self, rows: NDArray[np.int64]) -> dict[int, Pixels]:
        """Decode what is not kept, and keep what is small."""
        missing = np.unique(rows[~self._memory.has[rows]])
        together = map if self._threads == 1 else _pool(self._threads, os.getpid()).map
        fresh = dict(zip(missing.tolist(), together(self._pixels, missing, self._split.images(missing)), strict=True))
        for row, pixels in fresh.items():
            self._memory.keep(row, pixels)
        return fresh

    def _pixels(self, row: int, data: bytes) -> Pixels:
        try:
            image = decode(data)
            return np.asarray(image if self._resizing is None else fit(image, self._resizing))
        except ValueError as error:
            msg = f"{self._split.where}: row {row}: not a readable image ({error}); import the dataset again"
            raise CellError(msg) from error


def fits_in_memory(count: int, size: int) -> bool:
    """Whether so many squares of that size are kept in memory once they are decoded."""
    return size <= KEPT_SIDE and count * size**2 * 3 <= KEPT_BYTES


@cache
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """That many threads; a forked process needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


@dataclass
class _Kept:
    """Decoded images, resized in one way, and which rows have one."""

    has: NDArray[np.bool_]
    kept: Pixels = field(default_factory=lambda: np.empty((0, 0, 0, 3), dtype=np.uint8))
    lock: Lock = field(default_factory=Lock)

    def keep(self, row: int, pixels: Pixels) -> None:
        """Keep the image if it is small and of the same size as those before it."""
        with self.lock:
            if not len(self.kept) and max(pixels.shape) <= KEPT_SIDE and len(self.has) * pixels.size <= KEPT_BYTES:
                self.kept = np.empty((len(self.has), *pixels.shape), dtype=np.uint8)
        if self.kept.shape[1:] == pixels.shape:
            self.kept[row] = pixels
            self.has[row] = True


_kept: WeakKeyDictionary[Split, dict[Resizing | None, _Kept]] = WeakKeyDictionary()
