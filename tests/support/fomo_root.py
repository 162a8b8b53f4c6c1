"""A small root in the exact form of FoMo-in-Flux: images are drawn, metadata is the real one where it is at hand."""

import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from time_ray.data.fomo_table import DATASETS, FomoDataset

NAMES = ("isicmelanoma", "mvtecad_eval", "inaturalist2021", "fscoco", "monkeys10", "flickr30k")
Info = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Root:
    """What `time-ray data import fomo IMAGES INFO` reads, and a stream over the adaptation sets' classes in it."""

    images: Path
    info: Path
    stream: Path
    names: tuple[str, ...]


def build_root(
    folder: Path,
    info: Path | None,
    *,
    names: Sequence[str] = NAMES,
    layout: Literal["folder", "tar"] = "folder",
    classes: int = 3,
    train: int = 4,
    test: int = 2,
    side: int = 32,
) -> Root:
    """Write folder/{data,info,stream.json}: of each dataset some classes with so many images in each split.

    `info` is the benchmark's metadata (TIME_RAY_FOMO_INFO); without it metadata of the same form is made up. Class
    lists are whole where they are real. The first half of a resized dataset's images exists at 224 px only.
    """
    (folder / "info").mkdir(parents=True)
    pairs: list[str] = []
    for name in names:
        entry = DATASETS[name]
        listed = _classes(entry, info)
        if listed:
            (folder / f"info/{entry.folder}_classnames.json").write_text(json.dumps(listed))
        for split, word in entry.splits.items():
            rows = _rows(entry, word, info, listed, classes, train if split == "train" else test)
            (folder / f"info/{entry.folder}_{word}.json").write_text(json.dumps(rows))
            _draw(folder / "data" / entry.folder, entry, word, rows, side)
            if split == "train":
                pairs += [
                    f"{entry.folder}+++{name}" for name in dict.fromkeys(row["classname"] for row in rows.values())
                ]
        if layout == "tar":
            _pack(folder / "data" / entry.folder)
    random.Random(0).shuffle(pairs)
    (folder / "stream.json").write_text(json.dumps(pairs))
    return Root(folder, folder / "info", folder / "stream.json", tuple(names))


def _classes(entry: FomoDataset, info: Path | None) -> list[str]:
    if not entry.has_classes:
        return []
    if info is None:
        return [f"{entry.handle} kind {number}" for number in range(5)]
    listed: list[str] = json.loads((info / f"data_lib/00_info/{entry.folder}_classnames.json").read_text())
    return listed


def _rows(entry: FomoDataset, word: str, info: Path | None, listed: list[str], classes: int, count: int) -> Info:
    """So many rows of each of so many classes; of a set without classes so many in all."""
    path = info / f"data_lib/00_info/{entry.folder}_{word}.json" if info else None
    if path is None or not path.is_file():
        return dict(
            _made_up(entry, word, listed, number, count) for number in range(max(1, min(classes, len(listed))) * count)
        )
    found: Info = json.loads(path.read_text())
    wanted = sorted({row["target"] for row in found.values()})[:classes] if listed else []
    kept: Info = {}
    left = dict.fromkeys(wanted, count) if listed else {None: count}
    for name, row in found.items():
        target = row["target"] if listed else None
        if left.get(target, 0):
            left[target] -= 1
            kept[name] = row
    return kept


def _made_up(entry: FomoDataset, word: str, listed: list[str], number: int, count: int) -> tuple[str, dict[str, Any]]:
    path = f"{entry.handle}/{word}/{number // count}/{number:04}.jpg"
    row: dict[str, Any] = dict.fromkeys(
        ("classname", "default_caption", "primer_caption", "synthetic_caption", "synthetic_merged_caption")
    )
    if not listed:
        captions = [f"Picture {number} of {word}, said in way {way}." for way in range(5)]
        return path, row | {"default_caption": captions, "target": number}
    target = number // count
    row |= {"classname": listed[target], "target": target}
    if entry.kind == "retrieval":
        return path, row | {"default_caption": f"A sketch of number {number} with a {listed[target]}. "}
    primer = (entry.template or "").format(listed[target])
    if number % 2:
        return path, row | {"primer_caption": primer, "default_caption": f"{primer[:-1]}, number {number}."}
    merged = [f"{primer[:-1]}, seen as number {number}."] * (1 + number % 3)
    return path, row | {
        "primer_caption": primer,
        "synthetic_caption": [f"number {number}"] * len(merged),
        "synthetic_merged_caption": merged,
    }


def _draw(folder: Path, entry: FomoDataset, word: str, rows: Info, side: int) -> None:
    for number, (name, row) in enumerate(rows.items()):
        resized = entry.resized and number < len(rows) / 2
        path = folder / f"{entry.folder}_{word}_224" / name if resized else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn(f"{entry.folder} {word} {number}", row["target"], side, path.suffix))


def drawn(seed: str, target: int, side: int, suffix: str) -> bytes:
    """A noisy picture in its class's colour, a little wider than high."""
    noise = np.random.default_rng(list(seed.encode())).integers(0, 64, (side, side + 8, 3))
    colour = np.random.default_rng(target).integers(0, 192, 3)
    stream = io.BytesIO()
    Image.fromarray((noise + colour).astype(np.uint8)).save(stream, "PNG" if suffix == ".png" else "JPEG")
    return stream.getvalue()


def _pack(folder: Path) -> None:
    with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
        tar.add(folder, folder.name)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
