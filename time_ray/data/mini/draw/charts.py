"""Ten kinds of chart."""

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import COLOURS, Colour, Pen, disc, mix, named, plain, polar, tint

_INKS = ("red", "orange", "green", "blue", "purple", "cyan", "pink", "brown")
_LEFT, _RIGHT, _TOP, _BOTTOM = 9, 58, 8, 55
_AXIS: Colour = (70, 70, 75)


def _ink(rng: Random) -> Colour:
    return named(rng, rng.choice(_INKS))


def _axes(pen: Pen) -> None:
    pen.line([(_LEFT, _TOP - 3), (_LEFT, _BOTTOM), (_RIGHT + 3, _BOTTOM)], fill=_AXIS, width=2)


def _bar(rng: Random, pen: Pen) -> None:
    _axes(pen)
    number, ink = rng.randint(4, 5), _ink(rng)
    pitch = (_RIGHT - _LEFT - 3) / number
    for i in range(number):
        left = _LEFT + 4 + i * pitch
        pen.rectangle((left, rng.uniform(_TOP, _BOTTOM - 10), left + pitch * 0.6, _BOTTOM - 1), fill=ink)


def _walk(rng: Random) -> list[tuple[float, float]]:
    return [(_LEFT + 2 + i * 9.4, rng.uniform(_TOP + 2, _BOTTOM - 12)) for i in range(6)]


def _line(rng: Random, pen: Pen) -> None:
    _axes(pen)
    pen.line(_walk(rng), fill=_ink(rng), width=4, joint="curve")


def _area(rng: Random, pen: Pen) -> None:
    points = _walk(rng)
    pen.polygon([*points, (points[-1][0], _BOTTOM), (points[0][0], _BOTTOM)], fill=_ink(rng))
    _axes(pen)


def _slices(rng: Random, pen: Pen, radius: float) -> None:
    cuts, start = sorted(rng.sample(range(40, 321, 20), rng.randint(2, 4))), rng.uniform(0, 360)
    inks = rng.sample(_INKS, len(cuts) + 1)
    box = (32 - radius, 32 - radius, 32 + radius, 32 + radius)
    for low, high, ink in zip([0, *cuts], [*cuts, 360], inks, strict=True):
        pen.pieslice(box, start + low, start + high, fill=named(rng, ink))


def _pie(rng: Random, pen: Pen) -> None:
    _slices(rng, pen, rng.uniform(22, 27))


def _scatter(rng: Random, pen: Pen) -> None:
    _axes(pen)
    ink, slope = _ink(rng), rng.uniform(-0.8, 0.8)
    for _ in range(rng.randint(14, 20)):
        x = rng.uniform(_LEFT + 5, _RIGHT)
        y = 32 + slope * (x - 33) + rng.uniform(-12, 12)
        disc(pen, (x, min(_BOTTOM - 5, max(_TOP, y))), 2.6, ink)


def _histogram(rng: Random, pen: Pen) -> None:
    _axes(pen)
    ink, peak, width = _ink(rng), rng.uniform(3.5, 6.5), rng.uniform(1.6, 2.4)
    for i in range(10):
        height = 43 * math.exp(-(((i - peak) / width) ** 2) / 2) + rng.uniform(0, 4)
        left = _LEFT + 2 + 4.8 * i
        pen.rectangle((left, _BOTTOM - 1 - height, left + 4.8, _BOTTOM - 1), fill=ink, outline=mix(ink, _AXIS, 0.55))


def _heatmap(rng: Random, pen: Pen) -> None:
    number = rng.randint(5, 7)
    low, high, side = _ink(rng), tint(rng, (255, 250, 220)), 50 / number
    for row in range(number):
        for column in range(number):
            x, y = 7 + column * side, 7 + row * side
            pen.rectangle((x, y, x + side, y + side), fill=mix(low, high, rng.random()))


def _box(rng: Random, pen: Pen) -> None:
    _axes(pen)
    ink = _ink(rng)
    for i in range(3):
        x, top = 20 + 15.5 * i, rng.uniform(18, 28)
        bottom = top + rng.uniform(11, 17)
        pen.line([(x, top - rng.uniform(5, 9)), (x, bottom + rng.uniform(4, 8))], fill=_AXIS, width=2)
        pen.rectangle((x - 5, top, x + 5, bottom), fill=ink, outline=_AXIS, width=2)
        middle = (top + bottom) / 2
        pen.line([(x - 5, middle), (x + 5, middle)], fill=(250, 250, 250), width=2)


def _radar(rng: Random, pen: Pen) -> None:
    corners, ink = rng.randint(5, 6), _ink(rng)
    angles = [360 * i / corners for i in range(corners)]
    pen.polygon([polar(a, rng.uniform(11, 25), (32, 33)) for a in angles], fill=mix(ink, (255, 255, 255), 0.25))
    for radius in (13, 26):
        web = [polar(a, radius, (32, 33)) for a in angles]
        pen.line([*web, web[0]], fill=_AXIS, width=2)
    for angle in angles:
        pen.line([(32, 33), polar(angle, 26, (32, 33))], fill=_AXIS, width=1)


_CHARTS: dict[str, Callable[[Random, Pen], None]] = {
    "bar": _bar,
    "line": _line,
    "pie": _pie,
    "scatter": _scatter,
    "histogram": _histogram,
    "heatmap": _heatmap,
    "box": _box,
    "donut": _pie,
    "area": _area,
    "radar": _radar,
}
CHARTS = tuple(_CHARTS)


def draw_chart(rng: Random, chart: str) -> Image.Image:
    """A chart of random data on a pale page."""
    page = tint(rng, COLOURS["white"], 9)
    image = plain(page)
    pen = ImageDraw.Draw(image)
    _CHARTS[chart](rng, pen)
    if chart == "donut":
        disc(pen, (32, 32), rng.uniform(11, 14), page)
    return image
