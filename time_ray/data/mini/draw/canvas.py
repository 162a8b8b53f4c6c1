"""What all pictures share: colours, backgrounds, and the last steps from a 64 px drawing to a 32 px PNG."""

import io
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

DRAWN = 64  # side of a drawing; halved at the end, which smooths its edges
Colour = tuple[int, int, int]
Point = tuple[float, float]
Pixels = NDArray[np.uint8]
Field = NDArray[np.floating[Any]]
Pen = ImageDraw.ImageDraw
Draw = Callable[[Random, str], Image.Image]

COLOURS: dict[str, Colour] = {
    "red": (214, 32, 36),
    "orange": (245, 135, 20),
    "yellow": (247, 222, 40),
    "green": (36, 150, 52),
    "blue": (34, 70, 210),
    "purple": (122, 40, 160),
    "pink": (250, 140, 190),
    "brown": (122, 72, 30),
    "black": (20, 20, 22),
    "white": (246, 246, 246),
    "gray": (130, 130, 132),
    "cyan": (50, 205, 225),
}

Y, X = (axis.astype(np.float32) for axis in np.mgrid[0:DRAWN, 0:DRAWN])
_RAMP = np.linspace(0, 1, DRAWN, dtype=np.float32)


def tint(rng: Random, colour: Colour, spread: int = 22) -> Colour:
    """A colour near `colour`: each channel moves by at most `spread`."""
    red, green, blue = (min(255, max(0, channel + rng.randint(-spread, spread))) for channel in colour)
    return red, green, blue


def named(rng: Random, name: str) -> Colour:
    """One of the shades that go by a colour's name."""
    return tint(rng, COLOURS[name])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from a to b."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def distance(a: Colour, b: Colour) -> float:
    """Euclidean distance of two colours in RGB."""
    return math.dist(a, b)


def unlike(rng: Random, *others: Colour, least: float = 135) -> Colour:
    """A random colour that stands out from all the others."""
    best, best_distance = (0, 0, 0), -1.0
    for _ in range(12):
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        nearest = min(distance(colour, other) for other in others)
        if nearest >= least:
            return colour
        if nearest > best_distance:
            best, best_distance = colour, nearest
    return best


def plain(colour: Colour) -> Image.Image:
    """A drawing of one colour."""
    return Image.new("RGB", (DRAWN, DRAWN), colour)


def vertical_gradient(top: Colour, bottom: Colour) -> Image.Image:
    """A drawing that fades from top to bottom."""
    column = np.asarray(top) + _RAMP[:, None] * (np.asarray(bottom) - np.asarray(top))
    return Image.fromarray(np.broadcast_to(column[:, None, :], (DRAWN, DRAWN, 3)).astype(np.uint8))


def background(rng: Random, *others: Colour) -> Image.Image:
    """A quiet background, plain or fading, on which all the other colours can be seen."""
    colour = unlike(rng, *others)
    if rng.random() < 0.6:
        return plain(colour)
    return vertical_gradient(colour, mix(colour, unlike(rng, *others), 0.3))


def noisy(rng: Random, colour: Colour, amplitude: int = 45, cell: int = 2) -> Image.Image:
    """A background of random grains of `cell` px around one colour."""
    side = DRAWN // cell
    grains = (np.frombuffer(rng.randbytes(side * side), np.uint8).astype(np.float32) / 127.5 - 1).reshape(side, side)
    field = grains.repeat(cell, 0).repeat(cell, 1)[..., None] * amplitude + np.asarray(colour, np.float32)
    return Image.fromarray(field.clip(0, 255).astype(np.uint8))


def blend(field: Field, a: Colour, b: Colour) -> Image.Image:
    """The picture of a field: colour a where it is 0, b where it is 1."""
    low, high = np.asarray(a, np.float32), np.asarray(b, np.float32)
    return Image.fromarray((low + np.clip(field, 0, 1)[..., None] * (high - low)).astype(np.uint8))


def smooth_noise(rng: Random, cells: int) -> Field:
    """A random field in [0, 1] whose hills and valleys are about 64 / cells px wide."""
    grains = np.frombuffer(rng.randbytes(cells * cells), np.uint8).reshape(cells, cells)
    return np.asarray(Image.fromarray(grains).resize((DRAWN, DRAWN), Image.Resampling.BICUBIC), np.float32) / 255


def turned(angle: float, centre: Point = (DRAWN / 2, DRAWN / 2)) -> tuple[Field, Field]:
    """Pixel coordinates after a turn by `angle` degrees about a centre, measured from that centre."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dx, dy = X - centre[0], Y - centre[1]
    return cos * dx + sin * dy, cos * dy - sin * dx


def place(points: Sequence[Point], centre: Point, radius: float, angle: float = 0) -> list[Point]:
    """Unit points scaled to a radius, turned by an angle in degrees, and moved to a centre."""
    cos, sin = math.cos(math.radians(angle)) * radius, math.sin(math.radians(angle)) * radius
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in points]


def disc(pen: Pen, centre: Point, radius: float, fill: Colour) -> None:
    """Paint a filled circle."""
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def polar(angle: float, radius: float = 1, centre: Point = (0, 0)) -> Point:
    """The point at an angle in degrees, clockwise from twelve o'clock."""
    return centre[0] + radius * math.sin(math.radians(angle)), centre[1] - radius * math.cos(math.radians(angle))


def finish(rng: Random, drawing: Image.Image) -> Pixels:
    """The picture of a drawing: half its size, 12 % brighter or darker at most, with faint noise. uint8 [32, 32, 3]."""
    small = np.asarray(drawing.reduce(2), np.float32)
    # The sum of four uniform bytes is near enough to a Gaussian, and stays the same in every version of NumPy.
    grains = np.frombuffer(rng.randbytes(4 * small.size), np.uint8).reshape(4, *small.shape)
    noise = (grains.sum(0, dtype=np.float32) - 510) * np.float32(4 / 148)
    pixels: Pixels = (small * np.float32(rng.uniform(0.88, 1.12)) + noise).clip(0, 255).astype(np.uint8)
    return pixels


def encode(pixels: Pixels) -> bytes:
    """The pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
