"""Twelve plain shapes, filled or as outlines."""

import math
from random import Random

from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import (
    COLOURS,
    Colour,
    Pen,
    Point,
    background,
    named,
    noisy,
    place,
    polar,
    unlike,
)


def _regular(corners: int) -> list[Point]:
    return [polar(360 * i / corners) for i in range(corners)]


def _heart_point(t: float) -> Point:
    x = 16 * math.sin(t) ** 3
    y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return x / 17, -(y + 2) / 16


def _crescent() -> list[Point]:
    """The unit circle less a circle of radius 3/4 beside it; they meet at 45 and 70 degrees."""
    outer = [polar(angle) for angle in range(135, 406, 15)]
    inner = [polar(angle, 0.75, (0.45, 0)) for angle in range(375, 164, -15)]
    return outer + inner


_CIRCLE = _regular(36)
_UNIT: dict[str, list[Point]] = {
    "circle": _CIRCLE,
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)],
    "star": [polar(36 * i, 1.05 if i % 2 == 0 else 0.42) for i in range(10)],
    "pentagon": _regular(5),
    "cross": [
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ],
    "heart": [_heart_point(2 * math.pi * i / 30) for i in range(30)],
    "diamond": [(0, -1.1), (0.66, 0), (0, 1.1), (-0.66, 0)],
    "crescent": _crescent(),
    "arrow": [(-1, -0.28), (0.15, -0.28), (0.15, -0.75), (1.05, 0), (0.15, 0.75), (0.15, 0.28), (-1, 0.28)],
    "ellipse": [(1.1 * x, 0.55 * y) for x, y in _CIRCLE],
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "pentagon", "cross", "ring", "heart", "diamond", "crescent", "arrow",
          "ellipse")  # fmt: skip

# Each of five colours is held out of the pool for three of five shapes, so that neither alone tells the pairs apart.
_HELD_SHAPES = ("circle", "square", "triangle", "star", "heart")
_HELD_COLOURS = ("red", "green", "blue", "yellow", "purple")
HELD_OUT = tuple(f"{_HELD_COLOURS[(i + k) % 5]} {shape}" for i, shape in enumerate(_HELD_SHAPES) for k in range(3))


def fill(pen: Pen, shape: str, centre: Point, radius: float, angle: float, colour: Colour) -> None:
    """Paint a filled shape."""
    if shape == "ring":
        _hoop(pen, centre, radius, colour, round(radius * 0.42))
    else:
        pen.polygon(place(_UNIT[shape], centre, radius, angle), fill=colour)


def outline(pen: Pen, shape: str, centre: Point, radius: float, angle: float, colour: Colour, width: int) -> None:
    """Paint the outline of a shape."""
    if shape == "ring":
        _hoop(pen, centre, radius, colour, width)
        _hoop(pen, centre, radius * 0.55, colour, width)
    else:
        points = place(_UNIT[shape], centre, radius, angle)
        pen.line([*points, *points[:2]], fill=colour, width=width, joint="curve")


def _hoop(pen: Pen, centre: Point, radius: float, colour: Colour, width: int) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)


def somewhere(rng: Random, spread: float = 9) -> Point:
    """A point near the middle of the drawing."""
    return 32 + rng.uniform(-spread, spread), 32 + rng.uniform(-spread, spread)


def tilt(rng: Random) -> float:
    """A small turn in degrees."""
    return rng.uniform(-14, 14)


def filled(rng: Random, shape: str, colour: str) -> Image.Image:
    """A filled shape in a named colour on a quiet background."""
    paint = named(rng, colour)
    image = background(rng, paint)
    fill(ImageDraw.Draw(image), shape, somewhere(rng), rng.uniform(16, 25), tilt(rng), paint)
    return image


def outlined(rng: Random, shape: str, colour: str) -> Image.Image:
    """The outline of a shape in a named colour on a quiet background."""
    paint = named(rng, colour)
    image = background(rng, paint)
    outline(ImageDraw.Draw(image), shape, somewhere(rng), rng.uniform(17, 26), tilt(rng), paint, rng.randint(3, 6))
    return image


def draw_outline(rng: Random, shape: str) -> Image.Image:
    """The outline of a shape in any colour, on a grainy background."""
    paint = unlike(rng, (128, 128, 128), least=60)
    image = noisy(rng, unlike(rng, paint, least=170), 22)
    outline(ImageDraw.Draw(image), shape, somewhere(rng), rng.uniform(18, 25), tilt(rng), paint, rng.randint(4, 6))
    return image


def draw_pair(rng: Random, pair: str) -> Image.Image:
    """A filled shape in a colour with which the pool never shows it."""
    colour, shape = pair.split()
    return filled(rng, shape, colour)


def draw_colour(rng: Random, colour: str) -> Image.Image:
    """A shape of the colour on a background of gray grains."""
    paint = named(rng, colour)
    gray = rng.choice([level for level in (45, 128, 210) if unlike_gray(paint, level)])
    image = noisy(rng, (gray, gray, gray), 40, rng.choice((2, 4)))
    fill(ImageDraw.Draw(image), rng.choice(SHAPES), somewhere(rng), rng.uniform(19, 26), tilt(rng), paint)
    return image


def unlike_gray(paint: Colour, level: int) -> bool:
    """Whether a paint stands out from a gray level."""
    return math.dist(paint, (level, level, level)) > 95


PLACES: dict[str, Point] = {"left": (16, 32), "right": (48, 32), "top": (32, 16), "bottom": (32, 48)}


def placed(rng: Random, shape: str, colour: str, place_name: str) -> Image.Image:
    """A small filled shape at one side of the drawing."""
    paint = named(rng, colour)
    image = background(rng, paint)
    x, y = PLACES[place_name]
    centre = x + rng.uniform(-3, 3), y + rng.uniform(-3, 3)
    fill(ImageDraw.Draw(image), shape, centre, rng.uniform(10, 13), tilt(rng), paint)
    return image


NUMBERS = ("one", "two", "three", "four", "five", "six")
COUNTED = ("circle", "square", "triangle", "cross", "diamond", "ellipse", "ring")
COUNTED_HELD_OUT = ("star", "heart", "pentagon", "crescent")


def counted(rng: Random, number: str, shape: str, colour: Colour) -> Image.Image:
    """As many small equal shapes as the number says, each in its own cell of a grid of nine."""
    image = background(rng, colour)
    pen = ImageDraw.Draw(image)
    radius = rng.uniform(6.5, 8.5)
    for cell in rng.sample(range(9), NUMBERS.index(number) + 1):
        centre = 11.5 + 20.5 * (cell % 3) + rng.uniform(-2, 2), 11.5 + 20.5 * (cell // 3) + rng.uniform(-2, 2)
        fill(pen, shape, centre, radius, tilt(rng), colour)
    return image


def draw_count(rng: Random, number: str) -> Image.Image:
    """So many shapes of a kind that the pool never counts."""
    colour = named(rng, rng.choice(tuple(COLOURS)))
    return counted(rng, number, rng.choice(COUNTED_HELD_OUT), colour)
