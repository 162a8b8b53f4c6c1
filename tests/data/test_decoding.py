"""Whatever bytes hold, an image is decoded to what a viewer shows, and its digest tells whether that is news."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from pictures import picture
from PIL import Image

from time_ray.data.decoding import UnknownDepthError, decode, is_plain
from time_ray.data.importers.image_checks import image_fault, pillow_quiet
from time_ray.limits import TooMuchError

RED, WHITE = (255, 0, 0), (255, 255, 255)

FORMS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def half_seen(mode: str) -> Image.Image:
    """The left half is red, or black where there are no colours; the right is transparent, with noise under it."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    pixels[:, :8], pixels[:, 8:, 3] = (255, 0, 0, 255), 0
    if mode != "P":
        return Image.fromarray(pixels).convert(mode)
    image = Image.fromarray(np.where(pixels[..., 3] > 0, 0, 1).astype(np.uint8), "L")
    image.putpalette([*RED, 0, 255, 0])
    return image


@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [
        ("RGBA", "PNG", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGBA", "TIFF", {}),
        ("P", "PNG", {"transparency": 1}),
        ("P", "GIF", {"transparency": 1}),
        ("LA", "PNG", {}),
        ("LA", "TIFF", {}),
    ],
)
def test_what_is_transparent_is_white(mode: str, form: str, options: dict[str, Any]) -> None:
    data = encoded(half_seen(mode), form, **options)
    pixels = np.asarray(decode(data))
    left = RED if mode != "LA" else (76, 76, 76)
    assert (pixels[:, :8] == left).all()
    assert (pixels[:, 8:] == WHITE).all()
    assert not is_plain(data)


def test_one_colour_may_stand_for_transparency() -> None:
    for mode, hidden in (("RGB", RED), ("L", 7), ("I;16", 100)):
        image = Image.new(mode, (4, 4), hidden)
        data = encoded(image, transparency=hidden)
        assert (np.asarray(decode(data)) == WHITE).all(), mode
        assert not is_plain(data)


def test_half_transparent_is_mixed_with_white() -> None:
    assert decode(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_scaled(form: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (2, 1))
    data = encoded(Image.fromarray(ramp), form)
    assert (np.asarray(decode(data)) == np.arange(256)[None, :, None]).all()
    assert not is_plain(data)


def test_fewer_bits_are_scaled_by_their_number() -> None:
    ten = b"P5 4 1 1023\n" + np.array([0, 256, 512, 1023], dtype=">u2").tobytes()
    assert np.asarray(decode(ten))[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize(("mode", "value"), [("I", 70_000), ("F", 0.5)])
def test_a_depth_that_nobody_knows_is_a_fault_of_its_own(mode: str, value: float) -> None:
    data = encoded(Image.new(mode, (4, 4), value), "TIFF")
    with pytest.raises(UnknownDepthError, match="whose white is not known"):
        decode(data)
    with pillow_quiet():
        fault = image_fault(data)
    assert fault is not None
    assert fault.kind == "unknown depth"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_once_as_its_exif_says(form: str, orientation: int) -> None:
    """The stored picture is the upright one, transposed backwards."""
    upright = Image.new("RGB", (48, 32), WHITE)
    upright.paste(RED, (0, 0, 16, 16))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # FLIP_LEFT_RIGHT, ROTATE_180, ..., of Image.Transpose
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, form, exif=exif)
    found = decode(data)
    assert found.size == (48, 32)
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(upright)).mean() < 10
    assert is_plain(data) == (orientation == 1 or form == "TIFF")  # Pillow always turned a TIFF


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_makes_no_sense_turns_nothing() -> None:
    image = Image.open(io.BytesIO(picture(1)))
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"):
        data = encoded(image, "JPEG", exif=exif)
        assert decode(data).tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
        assert is_plain(data)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBA"])
def test_what_has_no_more_than_colours_is_as_it_was(mode: str) -> None:
    image = Image.open(io.BytesIO(picture(3))).convert(mode)
    files = [data for form in FORMS if (data := written(image, form)) is not None]
    assert files
    for data in files:
        assert decode(data).tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
        assert is_plain(data)


def written(image: Image.Image, form: str) -> bytes | None:
    """The image in that format; None if the format does not hold its mode."""
    try:
        return encoded(image, form)
    except (OSError, ValueError):
        return None


def test_no_bytes_are_too_odd_to_be_plain() -> None:
    assert [data for data in (b"", b"what", picture(0)[:50], b"\x89PNG\r\n\x1a\n") if not is_plain(data)] == []


def test_deep_grey_may_be_stored_the_other_way_round() -> None:
    ramp = np.linspace(0, 2**16 - 1, 64).astype(np.uint16).reshape(8, 8)
    data = encoded(Image.fromarray(ramp), "TIFF", tiffinfo={262: 0})  # white is 0
    grey = np.asarray(decode(data))[..., 0]
    assert (grey == 255 - (ramp >> 8)).all()
    assert not is_plain(data)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 99.0])
def test_an_orientation_that_is_none_is_no_fault(value: float) -> None:
    upright = picture_of_noise()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x0b\0\x01\0\0\0" + struct.pack("<f", value) + bytes(4)
    data = encoded(upright, "JPEG", exif=exif)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(encoded(upright, "JPEG"))))


def picture_of_noise() -> Image.Image:
    return Image.open(io.BytesIO(picture(0)))


@pytest.mark.parametrize(("size", "why"), [((1, 65_000), "more than 200 times"), ((9000, 10_000), "more than")])
def test_what_would_grow_is_refused_before_it_is_unpacked(size: tuple[int, int], why: str) -> None:
    header = bytearray(encoded(Image.new("L", (2, 2)), "PNG"))
    header[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with warnings.catch_warnings(action="ignore"), pytest.raises(TooMuchError, match=why):
        decode(bytes(header))
