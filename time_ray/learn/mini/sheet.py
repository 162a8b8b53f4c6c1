"""A contact sheet, so that a person can look at a dataset: `python -m time_ray.learn.mini.sheet FOLDER`."""

import argparse
import textwrap
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw

from time_ray.learn.mini.draw.canvas import Pixels
from time_ray.learn.mini.draw.glyphs import typeface
from time_ray.learn.mini.pool import ROWS, pool_sample
from time_ray.learn.mini.world import WORLD, samples, splits
from time_ray.learn.mini.write import POOL

_SIDE, _GAP, _TEXT = 64, 6, 32


def contact_sheet(dataset: str, split: str, rows: int, path: str | Path, columns: int = 12) -> None:
    """Write a PNG with the first `rows` times `columns` images of a split, each over its caption.

    For datasets with classes a column is a class, so that a row shows every class once.
    """
    if dataset == POOL:
        images = [(s.pixels, s.captions[0]) for s in map(pool_sample, range(min(ROWS, rows * columns)))]
    else:
        columns = len(WORLD[dataset].classes)
        images = _rows_of_classes(dataset, split, rows)
    _paste(images, columns).save(path)


def _rows_of_classes(dataset: str, split: str, rows: int) -> list[tuple[Pixels, str]]:
    classes = WORLD[dataset].classes
    by_class: list[list[Pixels]] = [[] for _ in classes]
    for sample in samples(dataset, split):
        if len(by_class[sample.label]) < rows:
            by_class[sample.label].append(sample.pixels)
    return [(by_class[label][row], classes[label]) for row in range(rows) for label in range(len(classes))]


def _paste(images: Iterable[tuple[Pixels, str]], columns: int) -> Image.Image:
    images = list(images)
    rows = -(-len(images) // columns)
    width, height = _SIDE + _GAP, _SIDE + _TEXT
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(page)
    for i, (pixels, caption) in enumerate(images):
        x, y = _GAP + i % columns * width, _GAP + i // columns * height
        page.paste(Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (x, y))
        pen.multiline_text(
            (x, y + _SIDE + 1), textwrap.fill(caption, 14), fill="black", font=typeface("DejaVuSans", 8), spacing=1
        )
    return page


def main() -> None:
    """Write one sheet a dataset into a folder."""
    parser = argparse.ArgumentParser(description="Contact sheets of the mini world, one PNG a dataset.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in (POOL, *WORLD):
        split = "train" if name == POOL else splits(name)[0]
        contact_sheet(name, split, arguments.rows, arguments.folder / f"{name}.png")


if __name__ == "__main__":
    main()
