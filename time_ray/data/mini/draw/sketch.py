"""Twelve things drawn with a pencil."""

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import Colour, Point, noisy, place, polar, tint


class _Pencil:
    """Draws on a page in unit coordinates, from -1 to 1, with a hand that shakes."""

    def __init__(self, rng: Random, image: Image.Image) -> None:
        self.rng = rng
        self.pen = ImageDraw.Draw(image)
        self.ink: Colour = tint(rng, (45, 45, 55), 18)
        self.width = rng.randint(2, 4)
        self.centre: Point = (32 + rng.uniform(-4, 4), 32 + rng.uniform(-4, 4))
        self.radius = rng.uniform(21, 26)
        self.angle = rng.uniform(-7, 7)

    def line(self, *points: Point) -> None:
        shaky = [(x + self.rng.uniform(-0.05, 0.05), y + self.rng.uniform(-0.05, 0.05)) for x, y in points]
        self.pen.line(place(shaky, self.centre, self.radius, self.angle), fill=self.ink, width=self.width)

    def box(self, left: float, top: float, right: float, bottom: float) -> None:
        self.line((left, top), (right, top), (right, bottom), (left, bottom), (left, top))

    def oval(self, x: float, y: float, width: float, height: float, start: int = 0, stop: int = 360) -> None:
        arc = [polar(a) for a in range(start, stop + 1, 20)]
        self.line(*((x + width * a, y + height * b) for a, b in arc))


def _house(p: _Pencil) -> None:
    p.box(-0.75, -0.1, 0.75, 0.9)
    p.line((-0.95, -0.1), (0, -0.95), (0.95, -0.1))
    p.box(-0.15, 0.3, 0.2, 0.9)


def _tree(p: _Pencil) -> None:
    p.oval(0, -0.4, 0.65, 0.55)
    p.line((-0.13, 0.15), (-0.13, 0.95))
    p.line((0.13, 0.15), (0.13, 0.95))


def _car(p: _Pencil) -> None:
    p.line((-1, 0.35), (-1, 0), (-0.55, -0.05), (-0.3, -0.5), (0.4, -0.5), (0.6, -0.05), (1, 0), (1, 0.35), (-1, 0.35))
    p.oval(-0.5, 0.42, 0.22, 0.22)
    p.oval(0.5, 0.42, 0.22, 0.22)


def _fish(p: _Pencil) -> None:
    p.oval(-0.15, 0, 0.7, 0.42)
    p.line((0.5, 0), (1, -0.4), (1, 0.4), (0.5, 0))
    p.oval(-0.5, -0.08, 0.06, 0.06)


def _flower(p: _Pencil) -> None:
    for angle in range(0, 360, 72):
        x, y = polar(angle, 0.38, (0, -0.4))
        p.oval(x, y, 0.22, 0.22)
    p.line((0, -0.2), (0, 0.95))
    p.line((0, 0.6), (0.4, 0.3))


def _cup(p: _Pencil) -> None:
    p.line((-0.65, -0.5), (-0.5, 0.75), (0.3, 0.75), (0.45, -0.5))
    p.oval(-0.1, -0.5, 0.55, 0.15)
    p.oval(0.5, 0.05, 0.35, 0.32, 0, 180)


def _boat(p: _Pencil) -> None:
    p.line((-0.95, 0.35), (0.95, 0.35), (0.55, 0.85), (-0.55, 0.85), (-0.95, 0.35))
    p.line((0, 0.35), (0, -0.95), (0.7, 0.15), (0, 0.15))


def _person(p: _Pencil) -> None:
    p.oval(0, -0.68, 0.25, 0.26)
    p.line((0, -0.4), (0, 0.3))
    p.line((-0.5, -0.05), (0, -0.25), (0.5, -0.05))
    p.line((-0.4, 0.95), (0, 0.3), (0.4, 0.95))


def _clock(p: _Pencil) -> None:
    p.oval(0, 0, 0.9, 0.9)
    p.line((0, -0.6), (0, 0), (0.42, 0.18))


def _ladder(p: _Pencil) -> None:
    p.line((-0.35, -1), (-0.35, 1))
    p.line((0.35, -1), (0.35, 1))
    for y in (-0.7, -0.25, 0.2, 0.65):
        p.line((-0.35, y), (0.35, y))


def _cat(p: _Pencil) -> None:
    p.oval(0, 0.15, 0.75, 0.65)
    p.line((-0.7, 0), (-0.65, -0.85), (-0.2, -0.45))
    p.line((0.7, 0), (0.65, -0.85), (0.2, -0.45))
    for side in (-1, 1):
        p.oval(side * 0.28, 0, 0.06, 0.08)
        p.line((side * 0.2, 0.35), (side, 0.25))
        p.line((side * 0.2, 0.42), (side, 0.5))


def _table(p: _Pencil) -> None:
    p.box(-0.95, -0.35, 0.95, -0.15)
    p.line((-0.75, -0.15), (-0.75, 0.8))
    p.line((0.75, -0.15), (0.75, 0.8))


_THINGS: dict[str, Callable[[_Pencil], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "fish": _fish,
    "flower": _flower,
    "cup": _cup,
    "boat": _boat,
    "person": _person,
    "clock": _clock,
    "ladder": _ladder,
    "cat": _cat,
    "table": _table,
}
THINGS = tuple(_THINGS)


def draw_sketch(rng: Random, thing: str) -> Image.Image:
    """A pencil drawing of a thing on paper."""
    image = noisy(rng, tint(rng, (240, 236, 226), 10), 6)
    _THINGS[thing](_Pencil(rng, image))
    return image
