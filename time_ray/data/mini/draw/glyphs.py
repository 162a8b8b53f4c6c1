"""Letters, digits and symbols in the fonts that come with matplotlib."""

from functools import cache
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

from time_ray.data.mini.draw.canvas import DRAWN, Colour, background, noisy, unlike
from time_ray.data.mini.draw.textures import TEXTURES, pool_texture

_POOL_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSansMono", "cmss10")
_HELD_OUT_FONTS = ("DejaVuSerif-Bold", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol")
_SYMBOL_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono")
_GREEK_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSans-Oblique")

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
_DIGITS = {
    "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
DIGITS = tuple(_DIGITS)
_SYMBOLS = {
    "spade": "♠", "club": "♣", "sun": "☀", "cloud": "☁", "umbrella": "☂", "snowman": "☃", "telephone": "☎",
    "skull": "☠", "anchor": "⚓", "airplane": "✈", "envelope": "✉", "scissors": "✂", "music note": "♫",
    "smiling face": "☺", "snowflake": "❄", "flag": "⚑", "crossed swords": "⚔", "gear": "⚙", "scales": "⚖",
    "lightning": "⚡",
}  # fmt: skip
SYMBOLS = tuple(_SYMBOLS)
_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ", "mu": "μ",
    "xi": "ξ", "pi": "π", "sigma": "σ", "phi": "φ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
GREEK = tuple(_GREEK)
ZODIAC = ("aries", "taurus", "gemini", "cancer", "leo", "virgo", "libra", "scorpio", "sagittarius", "capricorn",
          "aquarius", "pisces")  # fmt: skip
CHESS = ("king", "queen", "rook", "bishop", "knight", "pawn")


@cache
def typeface(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib, the same on every machine."""
    import matplotlib as mpl  # takes long, and only who draws needs it

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _stencil(char: str, font: str, extent: int) -> Image.Image:
    """The character as a mask in the middle of a drawing, its longer side about `extent` px."""
    left, top, right, bottom = typeface(font, 48).getbbox(char)
    size = round(48 * extent / max(right - left, bottom - top))
    left, top, right, bottom = typeface(font, size).getbbox(char)
    mask = Image.new("L", (DRAWN, DRAWN))
    corner = ((DRAWN - left - right) / 2, (DRAWN - top - bottom) / 2)
    ImageDraw.Draw(mask).text(corner, char, fill=255, font=typeface(font, size))
    return mask


def stamp(
    image: Image.Image, char: str, font: str, extent: int, angle: float, offset: tuple[int, int], ink: Colour
) -> None:
    """Paint a character in the middle of a drawing, turned by degrees and moved by an offset."""
    mask = _stencil(char, font, extent).rotate(angle, Image.Resampling.BILINEAR, translate=offset)
    image.paste(ink, mask=mask)


def _offset(rng: Random) -> tuple[int, int]:
    return rng.randint(-6, 6), rng.randint(-6, 6)


def _extent(rng: Random) -> int:
    return rng.randrange(38, 53, 2)


def _on_quiet(rng: Random, char: str, fonts: tuple[str, ...], ink: Colour) -> Image.Image:
    image = background(rng, ink)
    stamp(image, char, rng.choice(fonts), _extent(rng), rng.uniform(-12, 12), _offset(rng), ink)
    return image


def _any_ink(rng: Random) -> Colour:
    return unlike(rng, (128, 128, 128), least=60)


def _faint_texture(rng: Random, ink: Colour) -> Image.Image:
    return Image.blend(background(rng, ink), pool_texture(rng, rng.choice(TEXTURES)), 0.14)


def pool_letter(rng: Random, letter: str, ink: Colour) -> Image.Image:
    """A capital letter in one of the pool's fonts."""
    return _on_quiet(rng, letter.upper(), _POOL_FONTS, ink)


def pool_digit(rng: Random, digit: str, ink: Colour) -> Image.Image:
    """A printed digit in one of the pool's fonts."""
    return _on_quiet(rng, _DIGITS[digit], _POOL_FONTS, ink)


def pool_symbol(rng: Random, symbol: str, ink: Colour) -> Image.Image:
    """A symbol on a quiet background."""
    return _on_quiet(rng, _SYMBOLS[symbol], _SYMBOL_FONTS, ink)


def draw_letter(rng: Random, letter: str) -> Image.Image:
    """A capital letter in a font that the pool does not use."""
    return _on_quiet(rng, letter.upper(), _HELD_OUT_FONTS, _any_ink(rng))


def draw_street_number(rng: Random, digit: str) -> Image.Image:
    """A digit in a font that the pool does not use, on a faint texture."""
    ink = _any_ink(rng)
    image = _faint_texture(rng, ink)
    stamp(image, _DIGITS[digit], rng.choice(_HELD_OUT_FONTS), _extent(rng), rng.uniform(-8, 8), _offset(rng), ink)
    return image


def draw_symbol(rng: Random, symbol: str) -> Image.Image:
    """A symbol, turned further than in the pool, on a faint texture."""
    ink = _any_ink(rng)
    image = _faint_texture(rng, ink)
    angle = rng.choice((-1, 1)) * rng.uniform(10, 25)
    stamp(image, _SYMBOLS[symbol], rng.choice(_SYMBOL_FONTS), _extent(rng), angle, _offset(rng), ink)
    return image


def draw_greek(rng: Random, letter: str) -> Image.Image:
    """A small Greek letter."""
    return _on_quiet(rng, _GREEK[letter], _GREEK_FONTS, _any_ink(rng))


def draw_zodiac(rng: Random, sign: str) -> Image.Image:
    """A sign of the zodiac."""
    return _on_quiet(rng, chr(0x2648 + ZODIAC.index(sign)), _SYMBOL_FONTS, _any_ink(rng))


def draw_chess(rng: Random, piece: str) -> Image.Image:
    """A chess piece, black or white, on a square of the board."""
    white = rng.random() < 0.5
    ink = (245, 245, 240) if white else (25, 25, 28)
    image = noisy(rng, rng.choice(((180, 135, 95), (110, 140, 90), (130, 150, 175))), 14)
    stamp(image, chr(0x265A + CHESS.index(piece)), "DejaVuSans", _extent(rng), rng.uniform(-8, 8), _offset(rng), ink)
    return image
