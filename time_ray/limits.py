"""Limits on what is read from files of others, all of them here, and reading that keeps to them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

YAML_BYTES = 1 << 18  # of an experiment, or of a value on the command line
YAML_DEPTH = 32
YAML_VALUES = 10_000  # an alias counts as all that it stands for
YAML_NUMBER_LETTERS = 100
JSON_BYTES = 64 << 20  # of a card, a stream, an entry of the store
JSON_DEPTH = 64
METADATA_BYTES = 512 << 20  # of what a benchmark says of all images of a dataset
IMAGE_BYTES = 256 << 20  # encoded
IMAGE_PIXELS = 89_478_485  # as Pillow has it; of what an image is resized to as well
IMAGE_RATIO = 200  # of the longer side to the shorter one
CAPTION_LETTERS = 100_000
CAPTION_FILE_BYTES = 1 << 20  # that are looked at
PARQUET_BYTES = 1 << 30  # once decoded: of a row, and of the rows that are in memory at a time
TAR_HEADER_BYTES = 1 << 20  # of a header that extends the next one
PACKAGE_BYTES = 128 << 20  # of a package's file
TARS = 1_000_000  # that a pattern may name


class TooMuchError(ValueError):
    """It is beyond a limit, and was not taken in."""


def read_at_most(path: Path, most: int) -> bytes:
    """The bytes of a file. Raises TooMuchError if there are more, and what reading raises."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise TooMuchError(f"it has more than {most} bytes")
    return data


def parse_json(data: bytes, most: int = JSON_BYTES) -> Any:
    """What the JSON says. Raises ValueError, in one line, for what is none, has more bytes, or is nested too deeply."""
    if len(data) > most:
        raise TooMuchError(f"it has more than {most} bytes")
    try:
        found = json.loads(data)
    except RecursionError:
        raise TooMuchError(f"it is nested more than {JSON_DEPTH} deep") from None
    level = [found]
    for _ in range(JSON_DEPTH):
        level = [inner for value in level if isinstance(value, (dict, list)) for inner in _within(value)]
        if not level:
            return found
    raise TooMuchError(f"it is nested more than {JSON_DEPTH} deep")


def _within(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value
