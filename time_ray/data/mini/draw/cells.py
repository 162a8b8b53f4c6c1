"""Eight kinds of cell under the microscope."""

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import Colour, Pen, Point, disc, noisy, place, polar, tint
from time_ray.data.mini.draw.shapes import fill

_RED: Colour = (205, 85, 90)
_PURPLE: Colour = (95, 45, 135)


def _centres(rng: Random, number: int, gap: float) -> list[Point]:
    found: list[Point] = []
    for _ in range(number * 8):
        x, y = rng.uniform(6, 58), rng.uniform(6, 58)
        if all((x - a) ** 2 + (y - b) ** 2 > gap * gap for a, b in found):
            found.append((x, y))
        if len(found) == number:
            break
    return found


def _erythrocyte(rng: Random, pen: Pen) -> None:
    for x, y in _centres(rng, rng.randint(5, 7), 19):
        radius = rng.uniform(8, 10)
        disc(pen, (x, y), radius, tint(rng, _RED, 14))
        disc(pen, (x, y), radius * 0.42, tint(rng, (238, 185, 185), 8))


def _white_cell(rng: Random, pen: Pen, plasma: Colour) -> tuple[Point, float]:
    centre, radius = (32 + rng.uniform(-5, 5), 32 + rng.uniform(-5, 5)), rng.uniform(21, 25)
    disc(pen, centre, radius, tint(rng, plasma, 10))
    return centre, radius


def _lymphocyte(rng: Random, pen: Pen) -> None:
    centre, radius = _white_cell(rng, pen, (175, 185, 230))
    disc(pen, centre, radius * 0.8, tint(rng, _PURPLE, 14))


def _neutrophil(rng: Random, pen: Pen) -> None:
    centre, radius = _white_cell(rng, pen, (226, 205, 224))
    start = rng.uniform(0, 360)
    lobes = [polar(start + 75 * i, radius * 0.5, centre) for i in range(4)]
    ink = tint(rng, _PURPLE, 14)
    pen.line(lobes, fill=ink, width=4)
    for lobe in lobes:
        disc(pen, lobe, radius * 0.27, ink)


def _eosinophil(rng: Random, pen: Pen) -> None:
    centre, radius = _white_cell(rng, pen, (242, 190, 160))
    for _ in range(45):
        disc(pen, polar(rng.uniform(0, 360), rng.uniform(2, radius - 2), centre), 1.9, tint(rng, (235, 85, 40), 16))
    turn = rng.uniform(0, 360)
    for side in (0, 180):
        disc(pen, polar(turn + side, radius * 0.38, centre), radius * 0.34, tint(rng, _PURPLE, 10))


def _platelet(rng: Random, pen: Pen) -> None:
    for centre in _centres(rng, rng.randint(12, 18), 8):
        disc(pen, centre, rng.uniform(1.8, 3.2), tint(rng, (150, 85, 170), 16))


def _sickle(rng: Random, pen: Pen) -> None:
    for centre in _centres(rng, rng.randint(4, 6), 21):
        fill(pen, "crescent", centre, rng.uniform(11, 13), rng.uniform(0, 360), tint(rng, _RED, 14))


def _bacillus(rng: Random, pen: Pen) -> None:
    ink = tint(rng, (55, 90, 165), 20)
    for centre in _centres(rng, rng.randint(6, 9), 15):
        ends = place([(-1, 0), (1, 0)], centre, rng.uniform(7, 9), rng.uniform(0, 180))
        pen.line(ends, fill=ink, width=5)
        for end in ends:
            disc(pen, end, 2.3, ink)


def _coccus(rng: Random, pen: Pen) -> None:
    ink = tint(rng, (70, 60, 160), 20)
    for x, y in _centres(rng, rng.randint(3, 4), 24):
        for _ in range(7):
            disc(pen, (x + rng.uniform(-8, 8), y + rng.uniform(-8, 8)), 3.4, tint(rng, ink, 14))


_CELLS: dict[str, Callable[[Random, Pen], None]] = {
    "erythrocyte": _erythrocyte,
    "lymphocyte": _lymphocyte,
    "neutrophil": _neutrophil,
    "eosinophil": _eosinophil,
    "platelet": _platelet,
    "sickle": _sickle,
    "bacillus": _bacillus,
    "coccus": _coccus,
}
CELLS = tuple(_CELLS)


def draw_cell(rng: Random, cell: str) -> Image.Image:
    """One kind of cell, stained, on a pale slide."""
    image = noisy(rng, tint(rng, (240, 222, 222), 10), 8, 4)
    _CELLS[cell](rng, ImageDraw.Draw(image))
    return image
