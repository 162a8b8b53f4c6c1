"""A contact sheet, so that a person can look at a dataset: pictures over their captions."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from time_ray.data.dataset import Dataset, Split
from time_ray.data.decoding import decode
from time_ray.data.mini.draw.glyphs import typeface

COLUMNS = 16
SIDE, GAP, LINE, LINES = 96, 8, 11, 6
LETTERS = 18  # of a line
Tile = tuple[Image.Image, str] | None


def contact_sheet(dataset: Dataset, split: str, rows: int, path: str | Path) -> None:
    """Write a PNG with so many rows of images of a split, each over its first caption.

    With classes a column is a class, so that a row shows each once. Of many classes, or of images without any, those
    shown are spread evenly.
    """
    found = dataset.split(split)
    columns = _columns(found) if dataset.card.classes else []
    if not columns:
        chosen = _spread(range(len(found)), rows * COLUMNS)
        columns = [chosen[start::COLUMNS] for start in range(min(COLUMNS, len(chosen)))]
    tiles = [_tile(found, column[row]) if row < len(column) else None for row in range(rows) for column in columns]
    _page(tiles, len(columns)).save(path)


def _columns(split: Split) -> list[list[int]]:
    """The rows of each class that is shown."""
    labels = np.unique(split.labels[split.labels >= 0]).tolist()
    return [split.rows_of(label).tolist() for label in _spread(labels, COLUMNS)]


def _spread(values: Sequence[int], count: int) -> list[int]:
    """So many of the values, or all if there are no more, from the first one on at even distances."""
    count = min(count, len(values))
    return [values[number * len(values) // count] for number in range(count)]


def _tile(split: Split, row: int) -> Tile:
    (data,), (captions,) = split.images([row]), split.captions([row])
    return decode(data), captions[0]


def _page(tiles: Sequence[Tile], columns: int) -> Image.Image:
    width, height = SIDE + GAP, SIDE + LINE * LINES + GAP
    page = Image.new("RGB", (max(1, columns) * width + GAP, -(-len(tiles) // max(1, columns)) * height + GAP), "white")
    pen = ImageDraw.Draw(page)
    for number, tile in enumerate(tiles):
        if tile is not None:
            image, caption = tile
            x, y = GAP + number % columns * width, GAP + number // columns * height
            enlarge = Image.Resampling.NEAREST if max(image.size) < SIDE else Image.Resampling.LANCZOS
            ratio = SIDE / max(image.size)
            fitted = image.resize((max(1, round(image.width * ratio)), max(1, round(image.height * ratio))), enlarge)
            page.paste(fitted, (x + (SIDE - fitted.width) // 2, y + (SIDE - fitted.height) // 2))
            lines = textwrap.wrap(caption, LETTERS, max_lines=LINES, placeholder=" …")
            pen.multiline_text((x, y + SIDE + 2), "\n".join(lines), "black", typeface("DejaVuSans", 9), spacing=1)
    return page
