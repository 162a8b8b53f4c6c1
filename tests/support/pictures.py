"""A model smaller than the mini world's, and random pictures to go with it; workers import this file, too."""

import io

import numpy as np
from PIL import Image

from time_ray.data.dataset import Row

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 16, "width": 32, "heads": 2, "layers": 2},
}
CLASSES = ("cat", "dog", "owl")


def picture(number: int, size: tuple[int, int] = (16, 16)) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def rows(count: int, first: int = 0) -> list[Row]:
    """Rows whose classes take turns, each with two captions that name the row."""
    return [
        Row(picture(first + i), (f"{CLASSES[i % 3]} {i} a", f"{CLASSES[i % 3]} {i} b"), i % 3, str(i))
        for i in range(count)
    ]
