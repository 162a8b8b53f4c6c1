"""Images of a split: decoded, cut to the model's size, and kept where they are small."""

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
from time_ray.data.dataset import Split
from time_ray.data.decoding import decode

Pixels = NDArray[np.uint8]  # [height, width, 3]

KEPT_SIDE = 64  # images up to this many pixels a side are decoded once in a process
KEPT_BYTES = 256 * 1024**2  # in one split


def fit(image: Image.Image, size: int) -> Image.Image:
    """The central square of that size, after the shorter side was resized to it (bicubic); itself if it fits."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    scaled = image.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return scaled.crop((left, top, left + size, top + size))


class Decoded:
    """The decoded images of a split, fitted to a size if one is given.

    Small ones are decoded once for as long as the split lives, whichever object of this class reads them. With
    several threads images are decoded side by side: Pillow lets other threads run while it decodes and resizes.
    """

    def __init__(self, split: Split, size: int | None = None, *, threads: int = 1) -> None:
        self._split = split
        self._size = size
        self._threads = threads
        kept = _kept.setdefault(split, {})
        if size not in kept:
            kept[size] = _Kept(np.zeros(len(split), dtype=bool))
        self._memory = kept[size]

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
        except ValueError as error:
            msg = f"{self._split.where}: row {row}: not a readable image ({error}); import the dataset again"
            raise CellError(msg) from error
        return np.asarray(image if self._size is None else fit(image, self._size))


def fits_in_memory(count: int, size: int) -> bool:
    """Whether so many squares of that size are kept in memory once they are decoded."""
    return size <= KEPT_SIDE and count * size**2 * 3 <= KEPT_BYTES


@cache
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """That many threads; a forked process needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


@dataclass
class _Kept:
    """Decoded images of one size, and which rows have one."""

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


_kept: WeakKeyDictionary[Split, dict[int | None, _Kept]] = WeakKeyDictionary()
