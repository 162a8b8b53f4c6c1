"""Fourteen flags."""

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import DRAWN, Colour, Pen, X, background, disc, tint

_RED: Colour = (206, 30, 45)
_WHITE: Colour = (244, 244, 244)
_BLUE: Colour = (20, 60, 150)
_GREEN: Colour = (20, 130, 70)
_YELLOW: Colour = (250, 210, 30)
_ORANGE: Colour = (250, 135, 50)
_BLACK: Colour = (20, 20, 20)

_UPRIGHT: dict[str, tuple[Colour, ...]] = {
    "france": (_BLUE, _WHITE, _RED),
    "italy": (_GREEN, _WHITE, _RED),
    "ireland": (_GREEN, _WHITE, _ORANGE),
    "belgium": (_BLACK, _YELLOW, _RED),
}
_LEVEL: dict[str, tuple[Colour, ...]] = {
    "germany": (_BLACK, _RED, _YELLOW),
    "hungary": (_RED, _WHITE, _GREEN),
    "bulgaria": (_WHITE, _GREEN, _RED),
    "austria": (_RED, _WHITE, _RED),
    "ukraine": ((0, 90, 190), _YELLOW),
    "poland": (_WHITE, _RED),
}
_CROSSES: dict[str, tuple[Colour, Colour, float]] = {  # field, cross, where it stands
    "sweden": ((10, 90, 165), _YELLOW, 0.36),
    "denmark": (_RED, _WHITE, 0.36),
}
FLAGS = (*_UPRIGHT, *_LEVEL, "japan", *_CROSSES, "switzerland")


def _paint(rng: Random, pen: Pen, flag: str, width: float, height: float) -> None:
    if flag in _UPRIGHT:
        bands = _UPRIGHT[flag]
        for i, colour in enumerate(bands):
            step = width / len(bands)
            pen.rectangle((i * step, 0, (i + 1) * step, height), fill=tint(rng, colour, 12))
    elif flag in _LEVEL:
        bands = _LEVEL[flag]
        for i, colour in enumerate(bands):
            step = height / len(bands)
            pen.rectangle((0, i * step, width, (i + 1) * step), fill=tint(rng, colour, 12))
    elif flag == "japan":
        pen.rectangle((0, 0, width, height), fill=_WHITE)
        disc(pen, (width / 2, height / 2), height * 0.3, tint(rng, _RED, 12))
    elif flag == "switzerland":
        pen.rectangle((0, 0, width, height), fill=tint(rng, _RED, 12))
        _cross(pen, (width / 2, height / 2), (height * 0.3, height * 0.3), height * 0.1, _WHITE)
    else:
        field, cross, share = _CROSSES[flag]
        pen.rectangle((0, 0, width, height), fill=tint(rng, field, 12))
        _cross(pen, (width * share, height / 2), (width, height), height * 0.1, tint(rng, cross, 8))


def _cross(pen: Pen, centre: tuple[float, float], reach: tuple[float, float], half: float, colour: Colour) -> None:
    x, y = centre
    pen.rectangle((x - reach[0], y - half, x + reach[0], y + half), fill=colour)
    pen.rectangle((x - half, y - reach[1], x + half, y + reach[1]), fill=colour)


def draw_flag(rng: Random, flag: str) -> Image.Image:
    """A flag in the wind."""
    width, height = rng.randint(50, 60), rng.randint(34, 42)
    cloth = Image.new("RGB", (width, height))
    _paint(rng, ImageDraw.Draw(cloth), flag, width - 1, height - 1)
    image = background(rng, (244, 244, 244), _RED)
    image.paste(cloth, (rng.randint(0, DRAWN - width), rng.randint(4, DRAWN - height - 4)))
    folds = 1 + 0.12 * np.sin(2 * math.pi * X / rng.uniform(24, 40) + rng.uniform(0, 6))
    shaded = np.asarray(image, np.float32) * folds[..., None]
    return Image.fromarray(shaded.clip(0, 255).astype(np.uint8))
