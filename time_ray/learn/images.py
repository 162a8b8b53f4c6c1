"""Images: decoded, cut to the model's size, and kept where they are small."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from time_ray.core.errors import CellError
from time_ray.learn.dataset import Split

Pixels = NDArray[np.uint8]  # [height, width, 3]

KEPT_SIDE = 64  # images up to this many pixels a side are decoded once in a process
KEPT_BYTES = 256 * 1024**2  # in one split
CROP_AREA = (0.9, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10
CROP_DRAWS = 2 * CROP_TRIES + 2


def decode(data: bytes) -> Image.Image:
    """The image in RGB. Raises ValueError, saying why, if the bytes are not a whole image."""
    try:
        return Image.open(BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def fit(image: Image.Image, size: int) -> Image.Image:
    """The central square of that size, after the shorter side was resized to it (bicubic); itself if it fits."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    scaled = image.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC)
    left, top = round((scaled.width - size) / 2), round((scaled.height - size) / 2)
    return scaled.crop((left, top, left + size, top + size))


def crop(image: Image.Image, size: int, draws: NDArray[np.float64]) -> Image.Image:
    """A random part of 90 to 100 % of the area, resized to a square of that size (bicubic).

    `draws` are CROP_DRAWS numbers in [0, 1): they decide alone. The rule is torchvision's RandomResizedCrop.
    """
    left, top, width, height = _crop_box(image.width, image.height, draws.tolist())
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size, size), Image.Resampling.BICUBIC)


class Decoded:
    """The decoded images of a split, fitted to a size if one is given.

    Small ones are decoded once for as long as the split lives, whichever object of this class reads them. With
    several threads images are decoded side by side: Pillow lets other threads run while it decodes and resizes.
    """

    def __init__(self, split: Split, size: int | None = None, *, threads: int = 1) -> None:
        self._split = split
        self._size = size
        self._threads = threads
        stores = _stores.setdefault(split, {})
        if size not in stores:
            stores[size] = _Store(np.zeros(len(split), dtype=bool))
        self._store = stores[size]

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> list[Pixels]:
        """The images of those rows, in that order. Raises CellError, naming the row, for a broken one."""
        rows = np.asarray(indices, dtype=np.int64)
        fresh = self._load(rows)
        return [fresh[row] if row in fresh else self._store.kept[row] for row in rows.tolist()]

    def block(self, rows: NDArray[np.int64]) -> Pixels:
        """The images of ascending rows, as [count, height, width, 3]; not copied where they are kept side by side."""
        fresh = self._load(rows)
        if not self._store.has[rows].all():
            return np.stack([fresh[row] if row in fresh else self._store.kept[row] for row in rows.tolist()])
        consecutive = rows[-1] - rows[0] + 1 == len(rows)
        return self._store.kept[rows[0] : rows[-1] + 1] if consecutive else self._store.kept[rows]

    def _load(self, rows: NDArray[np.int64]) -> dict[int, Pixels]:
        """Decode what is not kept, and keep what is small."""
        missing = np.unique(rows[~self._store.has[rows]])
        together = map if self._threads == 1 else _pool(self._threads, os.getpid()).map
        fresh = dict(zip(missing.tolist(), together(self._pixels, missing, self._split.images(missing)), strict=True))
        for row, pixels in fresh.items():
            self._store.keep(row, pixels)
        return fresh

    def _pixels(self, row: int, data: bytes) -> Pixels:
        try:
            image = decode(data)
        except ValueError as error:
            msg = f"{self._split.where}: row {row}: not a readable image ({error}); import the dataset again"
            raise CellError(msg) from error
        return np.asarray(image if self._size is None else fit(image, self._size))


@cache
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    """That many threads; a forked process needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


@dataclass
class _Store:
    """Decoded images of one size, and which rows have one."""

    has: NDArray[np.bool_]
    kept: Pixels = field(default_factory=lambda: np.empty((0, 0, 0, 3), dtype=np.uint8))

    def keep(self, row: int, pixels: Pixels) -> None:
        """Keep the image if it is small and of the same size as those before it."""
        if not len(self.kept) and max(pixels.shape) <= KEPT_SIDE and len(self.has) * pixels.size <= KEPT_BYTES:
            self.kept = np.empty((len(self.has), *pixels.shape), dtype=np.uint8)
        if self.kept.shape[1:] == pixels.shape:
            self.kept[row] = pixels
            self.has[row] = True


_stores: WeakKeyDictionary[Split, dict[int | None, _Store]] = WeakKeyDictionary()


def _crop_box(width: int, height: int, draws: list[float]) -> tuple[int, int, int, int]:
    """Left, top, width and height: the first of ten tries that fits, or else the largest central box."""
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    for attempt in range(CROP_TRIES):
        area = width * height * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * draws[2 * attempt])
        ratio = math.exp(low + (high - low) * draws[2 * attempt + 1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[-2] * (width - w + 1)), int(draws[-1] * (height - h + 1)), w, h
    w = min(width, round(height * CROP_RATIO[1]))
    h = min(height, round(width / CROP_RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h
