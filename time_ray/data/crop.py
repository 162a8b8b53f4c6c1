"""Random resized crops: the one augmentation of the benchmark."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from time_ray.core.preprocessing import Resizing

AREA = (0.9, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10
CROP_DRAWS = 2 * TRIES + 2


def crop(pixels: NDArray[np.uint8], resizing: Resizing, draws: NDArray[np.float64]) -> Tensor:
    """A random part of 90 to 100 % of the area, resized to a square: uint8 [3, size, size].

    `draws` are CROP_DRAWS numbers in [0, 1): they decide alone. Of how images are resized it takes size and
    interpolation: a random part is squashed anyway. The rule is torchvision's RandomResizedCrop on uint8
    tensors: in whole numbers, so with the same result on every machine, and several times as fast as Pillow's.
    """
    height, width, _ = pixels.shape
    left, top, w, h = _crop_box(width, height, draws.tolist())
    part = torch.from_numpy(pixels[top : top + h, left : left + w].copy()).permute(2, 0, 1)
    square = (resizing.size, resizing.size)
    return functional.interpolate(part.unsqueeze(0), square, mode=resizing.interpolation, antialias=True)[0]


def _crop_box(width: int, height: int, draws: list[float]) -> tuple[int, int, int, int]:
    """Left, top, width and height: the first of ten tries that fits, or else the largest central box."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for attempt in range(TRIES):
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * draws[2 * attempt])
        ratio = math.exp(low + (high - low) * draws[2 * attempt + 1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[-2] * (width - w + 1)), int(draws[-1] * (height - h + 1)), w, h
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h
