"""A batch: the image-text pairs that one training step learns from."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Image-text pairs of one step, on the CPU or already on a GPU: uint8 images [B, 3, H, W] and B texts."""

    images: Tensor
    texts: list[str]
