"""Ten fabrics: fields over the plane, shown in two or three colours."""

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image

from time_ray.data.mini.draw.canvas import (
    Colour,
    Field,
    blend,
    mix,
    smooth_noise,
    tint,
    turned,
    unlike,
)

_Cloth = Callable[[Random, Field, Field], Image.Image]


def _pair(rng: Random, least: float = 150) -> tuple[Colour, Colour]:
    first = unlike(rng, (-999, 0, 0), least=0)
    return first, unlike(rng, first, least=least)


def _tartan(rng: Random, x: Field, y: Field) -> Image.Image:
    ground, band = _pair(rng, 130)
    p = rng.uniform(20, 26)
    wide = (((x / p) % 1 < 0.42).astype(np.float32) + ((y / p) % 1 < 0.42).astype(np.float32)) / 2
    image = np.asarray(blend(wide, ground, band))
    thin = ((x / p + 0.25) % 1 < 0.08) | ((y / p + 0.25) % 1 < 0.08)
    return Image.fromarray(np.where(thin[..., None], np.asarray(unlike(rng, ground, band), np.uint8), image))


def _gingham(rng: Random, x: Field, y: Field) -> Image.Image:
    colour = unlike(rng, (255, 255, 255), least=190)
    p = rng.uniform(13, 18)
    field = (((x / p) % 1 < 0.5).astype(np.float32) + ((y / p) % 1 < 0.5).astype(np.float32)) / 2
    return blend(field, (250, 250, 250), colour)


def _houndstooth(rng: Random, x: Field, y: Field) -> Image.Image:
    dark, light = tint(rng, (30, 30, 34)), tint(rng, (240, 238, 230), 14)
    p = rng.uniform(18, 24)
    u, v = (x / p) % 1, (y / p) % 1
    # A houndstooth is a gingham whose mixed squares are cut by diagonals.
    diagonal = ((u + v) * 4 % 2) < 1
    field = np.where((u < 0.5) & (v < 0.5), True, np.where((u >= 0.5) & (v >= 0.5), False, diagonal))
    return blend(field.astype(np.float32), light, dark)


def _herringbone(rng: Random, x: Field, y: Field) -> Image.Image:
    dark, light = _pair(rng, 120)
    p = rng.uniform(15, 19)
    column = np.floor(x / p) % 2
    slant = np.where(column == 0, x, -x)
    return blend((((y + slant) / 7.5) % 1 < 0.5).astype(np.float32), dark, light)


def _argyle(rng: Random, x: Field, y: Field) -> Image.Image:
    ground, first = _pair(rng, 130)
    p = rng.uniform(22, 28)
    u, v = x / p, y / (1.5 * p)
    fill = (np.floor(u + v) + np.floor(u - v)) % 2
    image = np.asarray(blend(fill.astype(np.float32), ground, first))
    seam = (((u + v + 0.5) % 1) < 0.07) | (((u - v + 0.5) % 1) < 0.07)
    return Image.fromarray(np.where(seam[..., None], np.uint8(245), image))


def _camouflage(rng: Random, _x: Field, _y: Field) -> Image.Image:
    shades = rng.choice((
        ((85, 95, 55), (130, 120, 80), (60, 55, 40), (45, 65, 40)),
        ((195, 175, 130), (150, 125, 85), (115, 95, 65), (215, 200, 165)),
    ))  # fmt: skip
    image = np.full((64, 64, 3), tint(rng, shades[0], 8), np.uint8)
    for shade in shades[1:]:
        image[smooth_noise(rng, 7) > 0.6] = tint(rng, shade, 8)
    return Image.fromarray(image)


def _leopard(rng: Random, x: Field, y: Field) -> Image.Image:
    p = rng.uniform(14, 18)
    row = np.floor(y / p)
    u, v = ((x / p + 0.5 * (row % 2)) % 1) - 0.5, (y / p) % 1 - 0.5
    radius = np.hypot(u, v) + (smooth_noise(rng, 12) - 0.5) * 0.22
    image = np.asarray(blend((radius < 0.2).astype(np.float32), tint(rng, (225, 175, 100), 12), (165, 105, 50)))
    spot = (radius > 0.2) & (radius < 0.38)
    return Image.fromarray(np.where(spot[..., None], np.uint8(30), image))


def _chevron(rng: Random, x: Field, y: Field) -> Image.Image:
    first, second = _pair(rng)
    p, width = rng.uniform(14, 18), rng.uniform(28, 34)
    return blend((((y + np.abs((x / width) % 1 - 0.5) * width) / p) % 1 < 0.5).astype(np.float32), first, second)


def _denim(rng: Random, x: Field, y: Field) -> Image.Image:
    blue = tint(rng, (62, 88, 140), 16)
    weave = 0.35 * (((x + y) / 5) % 1 < 0.5) + 0.35 * smooth_noise(rng, 16)
    image = np.asarray(blend(weave.astype(np.float32), blue, (200, 212, 232)))
    seam = np.abs(x - rng.uniform(-10, 10) - 1.5)
    stitch = (np.abs(seam - 4) < 1.2) & ((y / 7) % 1 < 0.6)
    return Image.fromarray(np.where(stitch[..., None], np.asarray((225, 160, 70), np.uint8), image))


def _basketweave(rng: Random, x: Field, y: Field) -> Image.Image:
    brown = tint(rng, (175, 125, 70), 22)
    p = rng.uniform(14, 18)
    across = (np.floor(x / p) + np.floor(y / p)) % 2 == 0
    strand = np.where(across, y, x)
    return blend(
        np.abs((strand / p * 3) % 1 - 0.5).astype(np.float32) * 2,
        mix(brown, (255, 245, 220), 0.35),
        mix(brown, (30, 15, 0), 0.65),
    )


_FABRICS: dict[str, _Cloth] = {
    "tartan": _tartan,
    "gingham": _gingham,
    "houndstooth": _houndstooth,
    "herringbone": _herringbone,
    "argyle": _argyle,
    "camouflage": _camouflage,
    "leopard": _leopard,
    "chevron": _chevron,
    "denim": _denim,
    "basketweave": _basketweave,
}
FABRICS = tuple(_FABRICS)


def draw_fabric(rng: Random, fabric: str) -> Image.Image:
    """A piece of cloth, laid a little askew."""
    x, y = turned(rng.uniform(-9, 9))
    return _FABRICS[fabric](rng, x + rng.uniform(0, 30), y + rng.uniform(0, 30))
