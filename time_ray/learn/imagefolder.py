"""Import of image folders: one folder for each class."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from time_ray.core.errors import UserError
from time_ray.learn.dataset import Card, write_dataset
from time_ray.learn.importing import PROMPT, image_fault, is_held_out
from time_ray.learn.shards import Row

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class _File(NamedTuple):
    path: Path
    classname: str


def import_imagefolder(root: str | Path, folder: str | Path) -> Card:
    """Write root/{train,test}/CLASS/IMAGE, or root/CLASS/IMAGE, as a dataset named after the root.

    Without a test folder every fifth image of a class is for testing. Underscores in class names become spaces, and
    captions are the class prompt. Every image is decoded once; raises UserError, naming each broken one, before
    anything is written.
    """
    root = Path(root)
    if not root.is_dir():
        msg = f"{root}: no such folder; correct the path"
        raise UserError(msg)
    splits = _splits(root)
    classes = sorted({file.classname for file in splits["train"]})
    UserError.unless_none(_faults(root, splits, classes))
    return write_dataset(
        folder,
        name=root.resolve().name,
        kind="classification",
        classes=classes,
        templates=[PROMPT],
        splits={name: _rows(root, files, classes) for name, files in splits.items()},
    )


def _splits(root: Path) -> dict[str, list[_File]]:
    if (root / "train").is_dir():
        return {name: _files(root / name) for name in ("train", "test")}
    splits: dict[str, list[_File]] = {"train": [], "test": []}
    for folder in _subfolders(root):
        for position, path in enumerate(_images(folder)):
            splits["test" if is_held_out(position) else "train"].append(_File(path, _classname(folder)))
    return splits


def _files(folder: Path) -> list[_File]:
    return [_File(path, _classname(inner)) for inner in _subfolders(folder) for path in _images(inner)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _classname(folder: Path) -> str:
    return folder.name.replace("_", " ")


def _faults(root: Path, splits: Mapping[str, Sequence[_File]], classes: Sequence[str]) -> Iterator[str]:
    if not classes:
        yield f"{root}: no training images in folders named after classes; arrange them as CLASS/IMAGE"
    for file in splits["test"]:
        if classes and file.classname not in classes:
            yield f"{file.path}: class {file.classname} has no training images; add some, or leave it out"
    for files in splits.values():
        for file in files:
            fault = image_fault(file.path.read_bytes())
            if fault is not None:
                yield f"{file.path}: not a readable image ({fault}); replace or remove it"


def _rows(root: Path, files: Sequence[_File], classes: Sequence[str]) -> Iterator[Row]:
    label = {name: number for number, name in enumerate(classes)}
    for file in files:
        key = file.path.relative_to(root).as_posix()
        yield Row(file.path.read_bytes(), (PROMPT.format(file.classname),), label[file.classname], key)
