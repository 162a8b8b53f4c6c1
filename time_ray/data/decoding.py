"""Decoding: encoded bytes become an image in RGB, by the same rules wherever images are checked, shown or learned."""

import struct
from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from time_ray.limits import IMAGE_PIXELS, IMAGE_RATIO, TooMuchError

DECODING = 2  # raise it when the same bytes would become other pixels; and see `is_plain`
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # others run programs, or read other files
DEEP = ("I", "F")  # how Pillow's modes of more than 8 bits begin
PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # one is in a PNG that has EXIF data
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION = 258, 262, 274  # tags of TIFF, and of EXIF
WHITE_IS_ZERO = 0
TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)


class UnknownDepthError(ValueError):
    """The image has numbers of which nobody says what is white."""


def decode(data: bytes) -> Image.Image:
    """The image in RGB, as a viewer shows it: turned as its EXIF says, transparent parts white, 8 bit a channel.

    Raises ValueError, saying why, if the bytes are not a whole image; UnknownDepthError for 32-bit and float ones, and
    TooMuchError for one of too many pixels or too narrow, before it is unpacked.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        _check_size(*image.size)
        image.load()
        return _on_white(_upright(_in_8_bit(image)))
    except UnidentifiedImageError as error:
        msg = f"none of {', '.join(FORMATS)}"
        raise ValueError(msg) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooMuchError(str(error)) from error
    except ValueError:
        raise
    except Exception as error:  # what a damaged file leads a decoder to raise is anybody's guess
        raise ValueError(str(error) or type(error).__name__) from error


def _check_size(width: int, height: int) -> None:
    if width * height > IMAGE_PIXELS:
        raise TooMuchError(f"{width} × {height} pixels, more than {IMAGE_PIXELS}")
    if max(width, height) > IMAGE_RATIO * min(width, height):
        raise TooMuchError(f"{width} × {height} pixels, one side more than {IMAGE_RATIO} times the other")


def is_plain(data: bytes) -> bool:
    """Whether `decode` gives what it gave before it knew transparency, depth and orientation: no more than RGB.

    So do bytes that are no image.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        is_turned = (image.format != "PNG" or any(mark in data for mark in PNG_EXIF)) and _orientation(image) in TURNS
        if not is_turned and not image.has_transparency_data and not image.mode.startswith(DEEP):
            return True
        return decode(data).tobytes() == image.convert("RGB").tobytes()
    except Exception:  # noqa: BLE001 - what a damaged file leads a decoder to raise is anybody's guess
        return True


def _in_8_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits by its upper 8, as Pillow itself reads colours of 16 bits."""
    if not image.mode.startswith(DEEP):
        return image
    if (image.mode in {"I", "F"} and image.format not in {"PNG", "PPM"}) or image.mode == "F":
        msg = f"grey of 32 bits or in fractions ({image.mode}), whose white is not known; save it with 8 or 16 bits"
        raise UnknownDepthError(msg)
    values = np.asarray(image)
    eight = (values >> _bits(image) - 8).astype(np.uint8)
    grey = Image.fromarray(255 - eight if _tag(image, PHOTOMETRIC) == WHITE_IS_ZERO else eight)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    grey.info.update({name: value for name, value in image.info.items() if name != "transparency"})
    return grey


def _bits(image: Image.Image) -> int:
    """Of a grey value: 16, or what a TIFF says."""
    return int((_tag(image, BITS_PER_SAMPLE) or (16,))[0])


def _tag(image: Image.Image, number: int) -> Any:
    """What a TIFF says under that number; None for any other image."""
    return getattr(image, "tag_v2", {}).get(number)


def _upright(image: Image.Image) -> Image.Image:
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The orientation in the EXIF data of a loaded image; 1, upright, where they say nothing or make no sense."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (SyntaxError, ValueError, OverflowError, TypeError, KeyError, OSError, struct.error):
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
