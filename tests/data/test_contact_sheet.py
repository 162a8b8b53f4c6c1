import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from time_ray.data.contact_sheet import COLUMNS, GAP, LINE, LINES, SIDE, contact_sheet
from time_ray.data.dataset import Dataset
from time_ray.data.shards import Row

Make = Callable[..., Dataset]
WIDTH, HEIGHT = SIDE + GAP, SIDE + LINE * LINES + GAP


def plain(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(stream, "PNG")
    return stream.getvalue()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as page:
        return np.asarray(page)


def middles(path: Path) -> list[list[tuple[int, ...]]]:
    """The colour in the middle of every picture of the page."""
    page = pixels(path)
    rows, columns = page.shape[0] // HEIGHT, page.shape[1] // WIDTH
    places = [
        [(GAP + r * HEIGHT + SIDE // 2, GAP + c * WIDTH + SIDE // 2) for c in range(columns)] for r in range(rows)
    ]
    return [[tuple(page[place].tolist()) for place in row] for row in places]


def test_a_column_is_a_class_and_a_row_shows_each_once(make_dataset: Make, tmp_path: Path) -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    rows = [Row(plain(colours[i // 3]), (f"picture {i}",), i // 3, str(i)) for i in range(8)]
    contact_sheet(make_dataset("pets", rows), "train", 3, tmp_path / "sheet.png")
    assert middles(tmp_path / "sheet.png") == [colours, colours, [*colours[:2], (255, 255, 255)]]


def test_captions_stand_under_the_pictures(make_dataset: Make, tmp_path: Path) -> None:
    said, silent = (
        make_dataset(name, [Row(plain((9, 9, 9)), (caption,), 0, "0")])
        for name, caption in (
            ("said", "a long caption that goes on and on, well beyond all lines " * 9),
            ("silent", "."),
        )
    )
    for name, dataset in (("said", said), ("silent", silent)):
        contact_sheet(dataset, "train", 1, tmp_path / f"{name}.png")
    dark = [(pixels(tmp_path / f"{name}.png")[GAP + SIDE :] < 128).sum() for name in ("said", "silent")]
    assert dark[0] > 50 * dark[1] > 0


def test_without_classes_pictures_are_spread_over_the_split(make_dataset: Make, tmp_path: Path) -> None:
    rows = [Row(plain((i, i, i)), ("x",), -1, str(i)) for i in range(4 * COLUMNS)]
    dataset = make_dataset("pool", rows, kind="captions", classes=(), templates=())
    contact_sheet(dataset, "train", 2, tmp_path / "sheet.png")
    shown = [colour[0] for row in middles(tmp_path / "sheet.png") for colour in row]
    assert shown == list(range(0, 4 * COLUMNS, 2))


def test_an_empty_split_is_an_empty_page(make_dataset: Make, tmp_path: Path) -> None:
    contact_sheet(make_dataset("pets", [], []), "train", 2, tmp_path / "sheet.png")
    assert pixels(tmp_path / "sheet.png").min() == 255
