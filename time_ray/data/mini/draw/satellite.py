"""Ten kinds of land seen from above."""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import (
    Colour,
    X,
    Y,
    blend,
    disc,
    noisy,
    plain,
    smooth_noise,
    tint,
    turned,
)

_WATER: Colour = (35, 85, 135)
_GRASS: Colour = (100, 140, 75)
_ROAD: Colour = (120, 120, 122)
_ROOFS: tuple[Colour, ...] = ((165, 80, 60), (150, 120, 100), (190, 185, 180), (110, 60, 50))


def _woodland(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, (30, 60, 30), 8), 10, 4)
    pen = ImageDraw.Draw(image)
    for _ in range(70):
        disc(pen, (rng.uniform(0, 64), rng.uniform(0, 64)), rng.uniform(3, 5.5), tint(rng, (45, 95, 45), 20))
    return image


def _dunes(rng: Random) -> Image.Image:
    x, y = turned(rng.uniform(-40, 40))
    field = (y + 5 * smooth_noise(rng, 4) * 3 + x * 0.05) / rng.uniform(11, 15) % 1
    return blend(field, tint(rng, (185, 135, 80), 12), tint(rng, (245, 215, 155), 10))


def _harbor(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, _WATER, 12), 8, 4)
    pen = ImageDraw.Draw(image)
    shore = rng.uniform(14, 20)
    pen.rectangle((0, 0, shore, 64), fill=tint(rng, (160, 155, 145), 12))
    for y in (rng.uniform(10, 14), rng.uniform(29, 33), rng.uniform(48, 52)):
        pen.rectangle((shore, y, rng.uniform(46, 56), y + 4), fill=(190, 180, 165))
        for x in range(int(shore) + 4, 44, 9):
            if rng.random() < 0.8:
                pen.ellipse((x, y + 5, x + 4, y + 13), fill=(248, 248, 250))
    return image


def _residential(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, _GRASS, 12), 10, 4)
    pen = ImageDraw.Draw(image)
    for road in (21, 43):
        pen.rectangle((road - 2.5, 0, road + 2.5, 64), fill=_ROAD)
    for column in (4, 27, 49):
        for row in range(rng.randint(1, 5), 60, 13):
            width, height = rng.uniform(8, 11), rng.uniform(7, 9)
            pen.rectangle((column, row, column + width, row + height), fill=tint(rng, rng.choice(_ROOFS), 10))
    return image


def _farmland(rng: Random) -> Image.Image:
    image = noisy(rng, (120, 140, 70), 8)
    pen = ImageDraw.Draw(image)
    rows, columns = sorted(rng.sample(range(10, 56, 9), 3)), sorted(rng.sample(range(10, 56, 9), 2))
    crops = ((205, 185, 95), (90, 145, 55), (150, 165, 70), (140, 105, 65), (60, 115, 50))
    for top, bottom in zip([0, *rows], [*rows, 64], strict=True):
        for left, right in zip([0, *columns], [*columns, 64], strict=True):
            crop = tint(rng, rng.choice(crops), 14)
            pen.rectangle((left, top, right - 1, bottom - 1), fill=crop, outline=(80, 90, 50))
    return image


def _winding(rng: Random) -> list[tuple[float, float]]:
    start, swing, phase = rng.uniform(24, 40), rng.uniform(7, 12), rng.uniform(0, 6)
    return [(start + swing * math.sin(y / 11 + phase), y) for y in range(-6, 72, 4)]


def _river(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, _GRASS, 16), 14, 4)
    ImageDraw.Draw(image).line(_winding(rng), fill=tint(rng, _WATER, 14), width=rng.randint(9, 14), joint="curve")
    return image


def _highway(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, _GRASS, 16), 12, 4)
    pen = ImageDraw.Draw(image)
    middle = rng.uniform(28, 36)
    pen.rectangle((middle - 11, 0, middle + 11, 64), fill=tint(rng, (95, 95, 98), 8))
    pen.rectangle((middle - 1, 0, middle + 1, 64), fill=(225, 190, 70))
    for lane in (middle - 6, middle + 6):
        for top in range(rng.randint(-6, 0), 64, 10):
            pen.rectangle((lane - 0.5, top, lane + 0.5, top + 5), fill=(240, 240, 240))
    for _ in range(rng.randint(3, 6)):
        x, y = middle + rng.choice((-8.5, -3.5, 3.5, 8.5)), rng.uniform(0, 58)
        pen.rectangle((x - 1.4, y, x + 1.4, y + 5), fill=tint(rng, rng.choice(((200, 40, 40), (240, 240, 240))), 12))
    return image


def _airport(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, (150, 165, 110), 12), 8, 4)
    pen = ImageDraw.Draw(image)
    for bar in ([(-30, 8), (30, 8)], [(-22, -20), (22, 22)]):
        ends = [(32 + x, 32 + y) for x, y in bar]
        pen.line(ends, fill=tint(rng, (88, 88, 92), 8), width=9)
        pen.line(ends, fill=(235, 235, 235), width=1)
    for _ in range(2):
        x, y = rng.uniform(34, 56), rng.uniform(8, 24)
        pen.line([(x - 6, y), (x + 6, y)], fill=(250, 250, 250), width=2)
        pen.line([(x, y - 6), (x, y + 6)], fill=(250, 250, 250), width=3)
    return image


def _parking_lot(rng: Random) -> Image.Image:
    image = noisy(rng, tint(rng, (105, 105, 108), 8), 6)
    pen = ImageDraw.Draw(image)
    for row in (4, 26, 46):
        for x in range(3, 62, 8):
            pen.line([(x, row), (x, row + 14)], fill=(235, 235, 235), width=1)
            if rng.random() < 0.75:
                paints = ((200, 40, 40), (40, 70, 170), (240, 240, 240), (25, 25, 28), (190, 190, 60))
                pen.rectangle((x + 2, row + 2, x + 6, row + 12), fill=tint(rng, rng.choice(paints), 14))
    return image


def _island(rng: Random) -> Image.Image:
    x, y = rng.uniform(-6, 6), rng.uniform(-6, 6)
    height = 1 - ((X - 32 - x) ** 2 + (Y - 32 - y) ** 2) / 560 + (smooth_noise(rng, 5) - 0.5) * 0.9
    image = blend((height > 0) * 1.0, tint(rng, (25, 110, 165), 12), tint(rng, (235, 215, 160), 8))
    green = plain(tint(rng, (60, 120, 55), 12))
    image.paste(green, mask=Image.fromarray(((height > 0.3) * 255).astype("uint8")))
    return image


_LANDS: dict[str, Callable[[Random], Image.Image]] = {
    "woodland": _woodland,
    "desert dunes": _dunes,
    "harbor": _harbor,
    "residential": _residential,
    "farmland": _farmland,
    "river": _river,
    "highway": _highway,
    "airport": _airport,
    "parking lot": _parking_lot,
    "island": _island,
}
LANDS = tuple(_LANDS)


def draw_land(rng: Random, land: str) -> Image.Image:
    """A patch of land from above, turned to any of the four sides."""
    image = _LANDS[land](rng)
    return image.rotate(90 * rng.randrange(4))
