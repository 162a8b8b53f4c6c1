"""A sweep that takes a blink: two tasks, one step each, on two datasets of a handful of pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from faulty import Point
from kept import end_state, table

from time_ray import api
from time_ray.api import Opened
from time_ray.data.dataset import write_dataset
from time_ray.data.mini.draw.canvas import encode
from time_ray.data.shards import Row
from time_ray.store.files import Files

SMALL: dict[str, Any] = {
    "name": "small",
    "init": ["ft", "ema"],
    "deploy": ["ema"],
    "technique": "average",
    "model": "mini-tiny",
    "budget": "1 steps",
    "stream": {"tasks": 2},
    "training": {"batch_size": 2, "augment": "none"},
    "run": {"workers": 0},
}


def draw(folder: Path) -> Path:
    """Two datasets in the folder: one to learn, one to measure."""
    for name, classes in (("learnt", ("dark", "light")), ("kept", ("dull", "bright"))):
        rows = [_row(i, classes) for i in range(6)]
        splits = {"train": rows, "test": rows[:4]} if name == "learnt" else {"test": rows[:4]}
        settings = {"name": name, "kind": "classification", "classes": classes, "templates": ("a {} square",)}
        write_dataset(folder / name, splits=splits, **settings)
    return folder


def _row(number: int, classes: Sequence[str]) -> Row:
    pixels = np.full((32, 32, 3), 40 * (1 + number), np.uint8)
    return Row(encode(pixels), (f"a {classes[number % 2]} square",), number % 2, str(number))


def open_small(folder: Path, data: Path, **changes: object) -> Opened:
    """The experiment, with its storage in the folder."""
    path = folder / "small.yaml"
    references = {"adaptation": str(data / "learnt"), "evaluation": str(data / "kept")}
    settings = {**SMALL, "data": references, "storage": str(folder / "runs"), **changes}
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return api.open_experiment(path)


def at(opened: Opened, files: Files) -> Opened:
    """The same experiment on another storage."""
    return replace(opened, files=files)


class Small(NamedTuple):
    """A sweep and how it ends if nothing goes wrong."""

    opened: Opened
    points: list[Point]  # every boundary at which it can be killed
    state: dict[str, object]
    table: list[object]

    def same(self, root: Path) -> bool:
        """Whether a storage holds exactly what an undisturbed run leaves there."""
        files = Files(str(root))
        return end_state(files) == self.state and table(at(self.opened, files)) == self.table
