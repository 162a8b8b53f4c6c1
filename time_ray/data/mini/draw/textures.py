"""Twelve textures: fields over the plane, shown in two colours."""

import math
from collections.abc import Callable
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from time_ray.data.mini.draw.canvas import DRAWN, Field, blend, turned, unlike

_Pattern = Callable[[Random, Field, Field, float], Field]


def _where(inked: NDArray[np.bool_]) -> Field:
    return inked.astype(np.float32)


def _steps(field: Field, duty: float = 0.5) -> Field:
    return _where(field % 1 < duty)


def _zigzag(_: Random, x: Field, y: Field, p: float) -> Field:
    return _steps((y + np.abs((x / (1.6 * p)) % 1 - 0.5) * 1.8 * p) / p)


def _waves(_: Random, x: Field, y: Field, p: float) -> Field:
    bent = y + 0.35 * p * np.sin(math.pi * x / p)
    field: Field = 0.5 + 0.5 * np.sin(2 * math.pi * bent / p)
    return field


def _dots(_: Random, x: Field, y: Field, p: float) -> Field:
    return _where(np.hypot((x / p) % 1 - 0.5, (y / p) % 1 - 0.5) < 0.32)


def _bricks(_: Random, x: Field, y: Field, p: float) -> Field:
    row = np.floor(y / (0.7 * p))
    return _where(((y / (0.7 * p)) % 1 < 0.22) | (((x / (1.5 * p)) + 0.5 * (row % 2)) % 1 < 0.11))


def _noise(rng: Random, _x: Field, _y: Field, p: float) -> Field:
    cell = 2 if p < 11 else 4
    side = DRAWN // cell
    grains = np.frombuffer(rng.randbytes(side * side), np.uint8).reshape(side, side)
    return grains.repeat(cell, 0).repeat(cell, 1) / 255


def _gradient(rng: Random, x: Field, y: Field, _p: float) -> Field:
    angle = rng.uniform(0, 2 * math.pi)
    return (math.cos(angle) * x + math.sin(angle) * y) / 76 + 0.5


def _rings(rng: Random, x: Field, y: Field, p: float) -> Field:
    return _steps(np.hypot(x - rng.uniform(-6, 6), y - rng.uniform(-6, 6)) / p)


_PATTERNS: dict[str, _Pattern] = {
    "horizontal stripes": lambda _, _x, y, p: _steps(y / p),
    "vertical stripes": lambda _, x, _y, p: _steps(x / p),
    "diagonal stripes": lambda _, x, y, p: _steps((x + y) * 0.7 / p),
    "checkerboard": lambda _, x, y, p: (_steps(x / (1.4 * p)) + _steps(y / (1.4 * p))) % 2,
    "dots": _dots,
    "grid": lambda _, x, y, p: np.maximum(_steps(x / p, 0.24), _steps(y / p, 0.24)),
    "waves": _waves,
    "zigzag": _zigzag,
    "noise": _noise,
    "gradient": _gradient,
    "bricks": _bricks,
    "concentric rings": _rings,
}
TEXTURES = tuple(_PATTERNS)


def _draw(rng: Random, texture: str, period: float, angle: float) -> Image.Image:
    first = unlike(rng, (-999, 0, 0), least=0)
    second = unlike(rng, first, least=150)
    x, y = turned(angle)
    phase = rng.uniform(0, 50)
    if texture in {"gradient", "concentric rings"}:
        phase = 0
    return blend(_PATTERNS[texture](rng, x + phase, y + phase * 0.7, period), first, second)


def pool_texture(rng: Random, texture: str) -> Image.Image:
    """A coarse texture, hardly turned."""
    return _draw(rng, texture, rng.uniform(11, 18), rng.uniform(-4, 4))


def draw_texture(rng: Random, texture: str) -> Image.Image:
    """A finer texture than the pool's, turned further."""
    return _draw(rng, texture, rng.uniform(8.5, 11), rng.choice((-1, 1)) * rng.uniform(6, 14))
