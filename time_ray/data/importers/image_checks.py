"""Whether bytes are a whole image: of a kind we read, of a size that fits into memory, and with nothing cut off."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from PIL import Image

from time_ray.data.decoding import UnknownDepthError, decode
from time_ray.limits import IMAGE_BYTES, TooMuchError


class ImageFault(NamedTuple):
    """What is wrong with an image: a word that can be counted, and what is known of this one."""

    kind: str
    detail: str


def image_fault(data: bytes) -> ImageFault | None:
    """Why the bytes are not a whole image, or None if they are. Call it within `pillow_quiet`."""
    if not data:
        return ImageFault("empty image", "it has no bytes")
    if len(data) > IMAGE_BYTES:
        return ImageFault("image too large", f"{len(data)} bytes, more than {IMAGE_BYTES}")
    try:
        decode(data)
    except ValueError as error:
        return ImageFault(_kind(error), str(error))
    if any(data.startswith(start) and not is_whole(data) for start, is_whole in _ENDS.items()):
        return ImageFault("truncated image", "its end is missing")
    return None


def _kind(error: ValueError) -> str:
    if isinstance(error, TooMuchError):
        return "image too large"
    return "unknown depth" if isinstance(error, UnknownDepthError) else "unreadable image"


@contextmanager
def pillow_quiet() -> Iterator[None]:
    """Broken images warn no one; ones that PIL finds too large are errors. For one thread at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _png_is_whole(data: bytes) -> bool:
    return data.rfind(b"IEND\xaeB`\x82") > 0


def _gif_is_whole(data: bytes) -> bool:
    return data.rstrip(b"\0").endswith(b";")


def _bmp_is_whole(data: bytes) -> bool:
    return len(data) >= int.from_bytes(data[2:6], "little")


# Formats that PIL reads to the last pixel without looking whether the file goes on to its end.
_ENDS: Mapping[bytes, Callable[[bytes], bool]] = MappingProxyType(
    {b"\x89PNG": _png_is_whole, b"GIF8": _gif_is_whole, b"BM": _bmp_is_whole}
)
