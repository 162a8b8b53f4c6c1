"""A drawing in another manner: paler, smaller, turned a little, on a ground of its own."""

from random import Random

from PIL import Image

from time_ray.data.mini.draw.canvas import DRAWN, background

_GRAY = (128, 128, 128)


def in_another_manner(rng: Random, drawing: Image.Image) -> Image.Image:
    """The drawing, of which up to a third is cut from its size and up to 60 % from its colours, turned by up to 10°."""
    paler = Image.blend(drawing, drawing.convert("L").convert("RGB"), rng.uniform(0, 0.6))
    side = rng.randint(44, 58)
    small = paler.resize((side, side), Image.Resampling.BILINEAR)
    angle = rng.uniform(-10, 10)
    mask = Image.new("L", (side, side), 255).rotate(angle, Image.Resampling.BILINEAR)
    image = background(rng, _GRAY)
    corner = (rng.randint(0, DRAWN - side), rng.randint(0, DRAWN - side))
    image.paste(small.rotate(angle, Image.Resampling.BILINEAR), corner, mask)
    return image
