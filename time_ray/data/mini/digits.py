"""The one real dataset of the mini world: handwritten digits that come with scikit-learn."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from time_ray.data.mini.draw.canvas import Pixels

SIDE = 32
NUM_TEST = 599


def digit_images(split: str, per_class: int) -> list[tuple[Pixels, int]]:
    """Images (uint8 [32, 32, 3]) and labels: every third digit is for testing, the first of the others for training.

    `per_class` bounds the training images of a class; testing has all its digits, about 60 of a class.
    """
    from sklearn.datasets import load_digits  # a second and 100 MB that only drawing needs

    source = load_digits()
    testing = np.arange(len(source.target)) % 3 == 2
    chosen = np.flatnonzero(testing if split == "test" else ~testing)
    taken: list[tuple[Pixels, int]] = []
    counts = np.zeros(10, int)
    for index in chosen:
        label = int(source.target[index])
        if split == "test" or counts[label] < per_class:
            counts[label] += 1
            taken.append((_enlarged(source.images[index]), label))
    return taken


def _enlarged(image: NDArray[np.float64]) -> Pixels:
    small = Image.fromarray((image * 255 / 16).astype(np.uint8))
    large = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return np.repeat(large[..., None], 3, axis=2)
