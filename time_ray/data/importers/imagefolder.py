"""Import of image folders: one folder for each class."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

from time_ray.core.errors import UserError
from time_ray.data.dataset import Card
from time_ray.data.importers.pipeline import PROMPT, DatasetSpec, ImportSettings, import_parts, is_held_out
from time_ray.data.importers.sample_faults import SampleFault
from time_ray.data.importers.samples import Sample, readable, sample_of_file, sample_parts

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class _File(NamedTuple):
    path: Path
    classname: str


def is_folder(source: str) -> bool:
    """Whether there may be folders of images: any folder that is nothing else."""
    return Path(source).is_dir()


def image_files(root: str | Path) -> list[Path]:
    """The images of all classes."""
    return sorted(file.path for files in _splits(Path(root)).values() for file in files)


def import_imagefolder(root: str | Path, folder: str | Path, **settings: Unpack[ImportSettings]) -> Card:
    """Write root/{train,test}/CLASS/IMAGE, or root/CLASS/IMAGE, as a dataset named after the root.

    Without a test folder every fifth image of a class is for testing. Underscores in class names become spaces, and
    captions are the class prompt. Every image is decoded once. Broken ones are left out, and named in the report.

    Raises:
        UserError: no folder, or no training images in folders named after classes; with every bad sample if `strict`.
        StoreError: as import_parts does.

    """
    root = Path(root)
    if not root.is_dir():
        msg = f"{root}: no such folder; correct the path"
        raise UserError(msg)
    splits = _splits(root)
    classes = sorted({file.classname for file in splits["train"]})
    if not classes:
        msg = f"{root}: no training images in folders named after classes; arrange them as CLASS/IMAGE"
        raise UserError(msg)
    label = {name: number for number, name in enumerate(classes)}
    parts, faults = sample_parts({split: _samples(root, split, files, label) for split, files in splits.items()})
    return import_parts(
        folder,
        DatasetSpec(readable(root.resolve().name), "classification", tuple(classes), (PROMPT,), tuple(splits)),
        parts,
        faults,
        **settings,
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
    return readable(folder.name).replace("_", " ")


def _samples(
    root: Path, split: str, files: Sequence[_File], label: Mapping[str, int]
) -> Iterator[Sample | SampleFault]:
    for file in files:
        if file.classname in label:
            captions, key = (PROMPT.format(file.classname),), readable(file.path.relative_to(root).as_posix())
            yield sample_of_file(file.path, captions, label[file.classname], split=split, key=key)
        else:
            detail = f"class {file.classname} has no training images; add some, or leave it out"
            yield SampleFault("label outside the classes", split, readable(str(file.path)), detail)
