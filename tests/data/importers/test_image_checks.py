"""Bytes that are not a whole image are told from those that are, whatever is wrong with them."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from time_ray.data.importers import image_checks
from time_ray.data.importers.image_checks import image_fault, pillow_quiet

KINDS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def encoded(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def kind_of(data: bytes) -> str | None:
    with pillow_quiet():
        fault = image_fault(data)
    return fault.kind if fault else None


def empty_png(width: int, height: int) -> bytes:
    """A PNG of that size in its header, of a hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_has_no_flaw_and_any_cut_is_one(kind: str) -> None:
    data = encoded(kind)
    assert kind_of(data) is None
    cuts = [*range(1, 30), len(data) // 2, len(data) - 1]
    assert [cut for cut in cuts if kind_of(data[:-cut]) is None] == []


def test_a_png_that_lacks_its_last_bytes_is_truncated() -> None:
    assert {kind_of(encoded("PNG")[:-cut]) for cut in range(1, 13)} == {"truncated image"}


def test_bytes_after_the_end_do_no_harm() -> None:
    assert [kind for kind in ("PNG", "JPEG") if kind_of(encoded(kind) + b"\0\0later") is not None] == []


@pytest.mark.parametrize("side", [10_000, 100_000, 2**31 - 1])
def test_a_decompression_bomb_is_too_large(side: int) -> None:
    assert kind_of(empty_png(side, side)) == "image too large"


def test_a_huge_file_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "IMAGE_BYTES", 100)
    assert kind_of(bytes(101)) == "image too large"


@pytest.mark.parametrize(
    "data", [b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"%PDF-1.4", b"\x80\x04\x95."]
)
def test_other_files_are_not_opened(data: bytes) -> None:
    with pillow_quiet():
        fault = image_fault(data)
    assert fault == ("unreadable image", "none of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM")


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_is_more_than_a_flaw(kind: str) -> None:
    draw = random.Random(kind)
    whole = encoded(kind)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 4, 16])):
            data[draw.randrange(draw.choice([40, len(data)]))] = draw.randrange(256)
        assert kind_of(bytes(data)) in {None, "unreadable image", "truncated image", "image too large"}
