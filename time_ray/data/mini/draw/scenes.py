"""Ten landscapes."""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from time_ray.data.mini.draw.canvas import DRAWN, Colour, Pen, disc, tint, vertical_gradient


def _sky(rng: Random, top: Colour, bottom: Colour) -> Image.Image:
    return vertical_gradient(tint(rng, top, 16), tint(rng, bottom, 16))


def _ground(pen: Pen, level: float, colour: Colour) -> None:
    pen.rectangle((0, level, DRAWN, DRAWN), fill=colour)


def _sunset(rng: Random) -> Image.Image:
    image = _sky(rng, (110, 40, 110), (255, 150, 50))
    pen = ImageDraw.Draw(image)
    level = rng.uniform(40, 48)
    disc(pen, (rng.uniform(20, 44), level), rng.uniform(9, 13), (255, 225, 100))
    _ground(pen, level, tint(rng, (60, 28, 50), 12))
    return image


def _beach(rng: Random) -> Image.Image:
    image = _sky(rng, (90, 180, 245), (190, 230, 250))
    pen = ImageDraw.Draw(image)
    level = rng.uniform(24, 30)
    _ground(pen, level, tint(rng, (20, 140, 200), 14))
    left, right = level + rng.uniform(8, 14), level + rng.uniform(8, 14)
    pen.polygon([(0, left), (DRAWN, right), (DRAWN, DRAWN), (0, DRAWN)], fill=tint(rng, (240, 215, 150), 12))
    x, y = rng.uniform(14, 50), rng.uniform(36, 42)
    pen.line([(x, y), (x, y + 18)], fill=(110, 70, 40), width=2)
    pen.pieslice((x - 12, y - 8, x + 12, y + 12), 180, 360, fill=tint(rng, (225, 40, 50)))
    return image


def _mountain(rng: Random) -> Image.Image:
    image = _sky(rng, (120, 170, 225), (200, 220, 240))
    pen = ImageDraw.Draw(image)
    for x, height in ((rng.uniform(6, 18), 24), (rng.uniform(46, 58), 28), (rng.uniform(26, 38), 44)):
        top, half = 60 - height, height * 0.62
        pen.polygon([(x, top), (x + half, 60), (x - half, 60)], fill=tint(rng, (105, 105, 120), 12))
        snow = height * 0.3
        pen.polygon([(x, top), (x + snow * 0.62, top + snow), (x - snow * 0.62, top + snow)], fill=(248, 248, 252))
    _ground(pen, 57, tint(rng, (70, 95, 70), 14))
    return image


def _snowy_field(rng: Random) -> Image.Image:
    image = _sky(rng, (150, 170, 195), (215, 222, 232))
    pen = ImageDraw.Draw(image)
    _ground(pen, rng.uniform(34, 40), (246, 248, 252))
    for _ in range(rng.randint(1, 3)):
        x, y = rng.uniform(8, 56), rng.uniform(38, 46)
        for step in range(3):
            half, low = 4 + 2 * step, y - 16 + 7 * step
            pen.polygon([(x, low - 9), (x + half, low), (x - half, low)], fill=tint(rng, (70, 100, 90), 12))
    for _ in range(26):
        disc(pen, (rng.uniform(0, 64), rng.uniform(0, 64)), 1.2, (255, 255, 255))
    return image


def _night_sky(rng: Random) -> Image.Image:
    image = _sky(rng, (8, 8, 40), (28, 24, 80))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(18, 30)):
        disc(pen, (rng.uniform(0, 64), rng.uniform(0, 50)), rng.uniform(0.7, 1.6), (250, 250, 220))
    disc(pen, (rng.uniform(12, 52), rng.uniform(10, 22)), rng.uniform(6, 9), (245, 240, 205))
    pen.polygon([(0, 64), (0, 54), (20, 50), (40, 56), (64, 52), (64, 64)], fill=(6, 6, 14))
    return image


def _meadow(rng: Random) -> Image.Image:
    image = _sky(rng, (110, 190, 250), (205, 232, 250))
    pen = ImageDraw.Draw(image)
    level = rng.uniform(22, 30)
    _ground(pen, level, tint(rng, (90, 175, 60), 14))
    for _ in range(rng.randint(16, 24)):
        petals = rng.choice(((240, 60, 80), (250, 220, 60), (250, 250, 250), (230, 120, 210)))
        disc(pen, (rng.uniform(0, 64), rng.uniform(level + 4, 64)), rng.uniform(1.5, 2.6), petals)
    return image


def _ocean(rng: Random) -> Image.Image:
    image = _sky(rng, (170, 210, 240), (215, 235, 245))
    pen = ImageDraw.Draw(image)
    level = rng.uniform(16, 24)
    _ground(pen, level, tint(rng, (16, 70, 140), 14))
    for row in range(4):
        y = level + 6 + row * 10
        phase = rng.uniform(0, 6)
        crest = [(x, y + 2 * math.sin(x / 4 + phase)) for x in range(0, 68, 4)]
        pen.line(crest, fill=(120, 175, 220), width=2)
    x = rng.uniform(16, 48)
    pen.polygon([(x - 8, level), (x + 8, level), (x + 5, level + 5), (x - 5, level + 5)], fill=(120, 60, 30))
    pen.polygon([(x, level - 14), (x, level - 1), (x + 8, level - 1)], fill=(250, 250, 250))
    return image


def _canyon(rng: Random) -> Image.Image:
    image = _sky(rng, (90, 160, 230), (235, 205, 170))
    pen = ImageDraw.Draw(image)
    middle = rng.uniform(26, 38)
    for side in (-1, 1):
        for layer in range(4):
            gap = 14 - 3.2 * layer
            edge, top = middle + side * gap, 10 + layer * 13
            far = -2 if side < 0 else 66
            rock = tint(rng, (200 - 26 * layer, 95 - 14 * layer, 50 - 6 * layer), 8)
            pen.polygon([(far, top), (edge + side * 5, top), (edge, top + 12), (edge, 64), (far, 64)], fill=rock)
    return image


def _rainy_city(rng: Random) -> Image.Image:
    image = _sky(rng, (75, 82, 95), (135, 142, 150))
    pen = ImageDraw.Draw(image)
    x = rng.uniform(-6, 0)
    while x < DRAWN:
        width, top = rng.uniform(11, 17), rng.uniform(14, 36)
        pen.rectangle((x, top, x + width, DRAWN), fill=tint(rng, (50, 54, 64), 12))
        for row in range(int(top) + 4, 60, 8):
            for column in (x + 2.5, x + width - 5.5):
                if rng.random() < 0.6:
                    pen.rectangle((column, row, column + 3, row + 3), fill=(245, 215, 110))
        x += width + 1
    for _ in range(26):
        a, b = rng.uniform(-6, 64), rng.uniform(-6, 60)
        pen.line([(a, b), (a + 3, b + 9)], fill=(185, 200, 220), width=1)
    return image


def _forest_trail(rng: Random) -> Image.Image:
    image = _sky(rng, (60, 120, 60), (120, 165, 80))
    pen = ImageDraw.Draw(image)
    _ground(pen, 36, tint(rng, (55, 95, 45), 10))
    x = rng.uniform(27, 37)
    pen.polygon([(x - 2, 34), (x + 2, 34), (50, 64), (14, 64)], fill=tint(rng, (190, 155, 105), 12))
    for trunk in (rng.uniform(2, 8), rng.uniform(12, 17), rng.uniform(46, 51), rng.uniform(56, 61)):
        pen.rectangle((trunk - 2.4, 6, trunk + 2.4, rng.uniform(44, 54)), fill=tint(rng, (75, 50, 30), 10))
        disc(pen, (trunk, rng.uniform(3, 9)), rng.uniform(8, 12), tint(rng, (30, 90, 40), 14))
    return image


_SCENES: dict[str, Callable[[Random], Image.Image]] = {
    "sunset": _sunset,
    "beach": _beach,
    "mountain": _mountain,
    "snowy field": _snowy_field,
    "night sky": _night_sky,
    "meadow": _meadow,
    "ocean": _ocean,
    "canyon": _canyon,
    "rainy city": _rainy_city,
    "forest trail": _forest_trail,
}
SCENES = tuple(_SCENES)


def pool_scene(rng: Random, scene: str) -> Image.Image:
    """A landscape, sometimes mirrored."""
    image = _SCENES[scene](rng)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def draw_blurred(rng: Random, scene: str) -> Image.Image:
    """A landscape out of focus and drained of colour."""
    image = pool_scene(rng, scene).filter(ImageFilter.BoxBlur(rng.uniform(2.5, 4)))
    return Image.blend(image, image.convert("L").convert("RGB"), rng.uniform(0.4, 0.75))
