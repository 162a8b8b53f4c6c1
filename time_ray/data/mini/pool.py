"""The pool that the base models learn from: pictures of everyday forms with loose captions."""

from collections.abc import Callable
from itertools import product
from random import Random

from PIL import Image

from time_ray.data.mini.draw.canvas import COLOURS, finish, named
from time_ray.data.mini.draw.glyphs import DIGITS, LETTERS, SYMBOLS, pool_digit, pool_letter, pool_symbol
from time_ray.data.mini.draw.scenes import SCENES, pool_scene
from time_ray.data.mini.draw.shapes import (
    COUNTED,
    HELD_OUT,
    NUMBERS,
    PLACES,
    SHAPES,
    counted,
    filled,
    outlined,
    placed,
)
from time_ray.data.mini.draw.textures import TEXTURES, pool_texture
from time_ray.data.mini.sample import Sample, generator

ROWS = 30_000
_CAPTIONS = 3
_NAMES = tuple(COLOURS)

Captioned = tuple[Image.Image, tuple[str, ...]]

_PAIRS = tuple((colour, shape) for colour, shape in product(COLOURS, SHAPES) if f"{colour} {shape}" not in HELD_OUT)

# About half of what is said names the form alone: where the colour is always named, forms are hardly learned.
_FILLED = (
    "{a_form}", "a picture of {a_form}", "a filled {form}", "{form} shape",
    "{a_both}", "a picture of {a_both}", "{both}", "something {colour}", "the color {colour}",
)  # fmt: skip
_OUTLINED = (
    "{a_form}", "the outline of {a_form}", "a picture of {a_form}", "{form} shape",
    "the outline of {a_both}", "{both} outline", "something {colour}",
)  # fmt: skip
_TEXTURE = ("{form} texture", "a pattern of {form}", "{form}", "a picture of {form}", "{form} pattern")
_LETTER = (
    "the letter {form}", "letter {form}", "a picture of the letter {form}", "capital letter {form}",
    "the {colour} letter {form}", "capital letter {form} in {colour}",
)  # fmt: skip
_DIGIT = (
    "the number {form}", "number {form}", "a picture of the number {form}", "the digit {form}",
    "the {colour} number {form}",
)  # fmt: skip
_SYMBOL = ("{a_form}", "{form} symbol", "a picture of {a_form}", "a symbol of {a_form}", "{a_both}")
_COUNT = (
    "{number} {thing}", "a picture of {number} {thing}", "{number} small {thing}", "{number} {form}",
    "{number} {colour} {form}",
)  # fmt: skip
_SCENE = ("{a_form}", "a picture of {a_form}", "{form} landscape", "a view of {a_form}")
_PLACED = (
    "{a_form} at the {place}", "something at the {place}", "a small {form}",
    "{a_both} at the {place}", "a small {both}",
)  # fmt: skip


def with_article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    """The noun for more than one."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _say(templates: tuple[str, ...], form: str, colour: str = "", **words: str) -> tuple[str, ...]:
    both = f"{colour} {form}"
    words |= {"form": form, "a_form": with_article(form), "colour": colour, "both": both, "a_both": with_article(both)}
    return tuple(template.format(**words) for template in templates)


def _filled(rng: Random) -> Captioned:
    colour, shape = rng.choice(_PAIRS)
    return filled(rng, shape, colour), _say(_FILLED, shape, colour)


def _outlined(rng: Random) -> Captioned:
    colour, shape = rng.choice(_PAIRS)
    return outlined(rng, shape, colour), _say(_OUTLINED, shape, colour)


def _texture(rng: Random) -> Captioned:
    texture = rng.choice(TEXTURES)
    return pool_texture(rng, texture), _say(_TEXTURE, texture)


def _letter(rng: Random) -> Captioned:
    letter, colour = rng.choice(LETTERS), rng.choice(_NAMES)
    return pool_letter(rng, letter, named(rng, colour)), _say(_LETTER, letter, colour)


def _digit(rng: Random) -> Captioned:
    digit, colour = rng.choice(DIGITS), rng.choice(_NAMES)
    return pool_digit(rng, digit, named(rng, colour)), _say(_DIGIT, digit, colour)


def _symbol(rng: Random) -> Captioned:
    symbol, colour = rng.choice(SYMBOLS), rng.choice(_NAMES)
    return pool_symbol(rng, symbol, named(rng, colour)), _say(_SYMBOL, symbol, colour)


def _count(rng: Random) -> Captioned:
    number = rng.choice(NUMBERS)
    colour, shape = rng.choice([pair for pair in _PAIRS if pair[1] in COUNTED])
    form, thing = (shape, "thing") if number == "one" else (plural(shape), "things")
    captions = _say(_COUNT, form, colour, number=number, thing=thing)
    return counted(rng, number, shape, named(rng, colour)), captions


def _scene(rng: Random) -> Captioned:
    scene = rng.choice(SCENES)
    return pool_scene(rng, scene), _say(_SCENE, scene)


def _placed(rng: Random) -> Captioned:
    colour, shape = rng.choice(_PAIRS)
    place = rng.choice(tuple(PLACES))
    return placed(rng, shape, colour, place), _say(_PLACED, shape, colour, place=place)


_FAMILIES: dict[Callable[[Random], Captioned], float] = {
    _filled: 0.20,
    _outlined: 0.10,
    _texture: 0.12,
    _letter: 0.21,
    _digit: 0.10,
    _symbol: 0.14,
    _count: 0.06,
    _scene: 0.05,
    _placed: 0.02,
}


def everyday(rng: Random) -> Captioned:
    """A picture of one of the families, with all that may be said of it."""
    (family,) = rng.choices(tuple(_FAMILIES), tuple(_FAMILIES.values()))
    return family(rng)


def pool_sample(index: int) -> Sample:
    """The picture of this index, with three of its family's captions. Any index of at least 0; the pool has `ROWS`."""
    return captioned(generator("pool", "train", index), everyday)


def captioned(rng: Random, family: Callable[[Random], Captioned]) -> Sample:
    """A picture of the family, finished, with three of the captions that may be said of it."""
    drawing, captions = family(rng)
    return Sample(finish(rng, drawing), tuple(rng.sample(captions, _CAPTIONS)), -1)
