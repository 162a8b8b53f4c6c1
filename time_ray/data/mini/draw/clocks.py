"""Clock faces at the twelve full hours."""

from random import Random

from PIL import Image, ImageDraw

from time_ray.data.mini.draw.canvas import background, disc, mix, polar, tint, unlike

_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
HOURS = tuple(f"{hour} o clock" for hour in _HOURS)


def draw_clock(rng: Random, hour: str) -> Image.Image:
    """A clock whose hour hand points to the hour, and whose thin minute hand points up."""
    number = HOURS.index(hour) + 1
    face = tint(rng, (246, 243, 232), 9)
    rim = unlike(rng, face, least=190)
    image = background(rng, face, rim)
    pen = ImageDraw.Draw(image)
    centre, radius = (32 + rng.uniform(-3, 3), 32 + rng.uniform(-3, 3)), rng.uniform(25, 29)
    disc(pen, centre, radius, rim)
    disc(pen, centre, radius - 3.5, face)
    for mark in range(12):
        disc(pen, polar(30 * mark, radius - 6.5, centre), 1.3 if mark % 3 else 2.1, mix(rim, face, 0.3))
    hand = unlike(rng, face, least=230)
    pen.line([centre, polar(rng.uniform(-2, 2), radius - 7, centre)], fill=mix(hand, face, 0.35), width=2)
    pen.line([centre, polar(30 * number + rng.uniform(-3, 3), radius * 0.62, centre)], fill=hand, width=6)
    return image
