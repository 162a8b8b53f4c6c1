"""One picture of the mini world with what is said of it."""

import random
from typing import NamedTuple

from time_ray.data.mini.draw.canvas import Pixels

VERSION = 1  # raise it when any picture or caption changes


class Sample(NamedTuple):
    """A picture, its captions and its class."""

    pixels: Pixels  # uint8 [32, 32, 3]
    captions: tuple[str, ...]
    label: int  # -1: none


def generator(dataset: str, split: str, index: int) -> random.Random:
    """The random numbers of one picture: the same in every process and on every machine."""
    return random.Random(f"mini world {VERSION}, {dataset}, {split}, {index}")
