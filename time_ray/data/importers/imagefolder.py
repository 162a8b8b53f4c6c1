"""Import of image folders: one folder for each class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Unpack

from time_ray.core.errors import UserError, some_of
from time_ray.data.dataset import Card
from time_ray.data.importers import class_names
from time_ray.data.importers.class_names import quoted, spelling
from time_ray.data.importers.folder_files import FolderFiles, files_below
from time_ray.data.importers.pipeline import PROMPT, DatasetSpec, ImportSettings, import_parts, is_held_out
from time_ray.data.importers.sample_faults import SampleFault, note, notes_on
from time_ray.data.importers.samples import Sample, readable, sample_of_file, sample_parts

# Of the formats that are decoded, every ending that Pillow knows.
SUFFIXES = frozenset(
    ".apng .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pfm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
# What the folder of a split may be called, in any case.
SPLIT_NAMES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "train": frozenset({"train", "training"}),
        "test": frozenset({"test", "testing", "eval", "evaluation"}),
        "validation": frozenset({"val", "valid", "validation", "dev"}),
    }
)

LEADS_NOWHERE = "no plain file, or a link to none; replace or remove it"


class _File(NamedTuple):
    path: Path
    classname: str


class _Arrangement(NamedTuple):
    """The files of each split, of which some may be links that lead nowhere, and what is to be said of the others."""

    splits: Mapping[str, Sequence[_File]]
    notes: Sequence[SampleFault]


def is_folder(source: str) -> bool:
    """Whether there may be folders of images: any folder that is nothing else."""
    return Path(source).is_dir()


def image_files(root: str | Path) -> list[Path]:
    """The images of all classes."""
    return sorted(file.path for files in _arranged(Path(root)).splits.values() for file in files)


def import_imagefolder(root: str | Path, folder: str | Path, **settings: Unpack[ImportSettings]) -> Card:
    """Write root/{train,test}/CLASS/IMAGE, or root/CLASS/IMAGE, as a dataset named after the root.

    Splits may be named as in SPLIT_NAMES; a validation split is for testing where there is no test split, and is not
    read where there is one. Without splits every fifth image of a class is for testing. Underscores in class names
    become spaces, and captions are the class prompt. Links are followed, hidden files and folders are not read. Every
    image is decoded once. Broken ones are left out, and named in the report.

    Raises:
        UserError: no folder, or no training images in folders named after classes; with every bad sample if `strict`.
        StoreError: as import_parts does.

    """
    root = Path(root)
    if not root.is_dir():
        msg = f"{root}: no such folder; correct the path"
        raise UserError(msg)
    splits, notes = _arranged(root)
    classes = sorted({file.classname for file in splits["train"]})
    if not classes:
        seen = "".join(f"; {found.files} × {found.kind}" for found in notes if found.is_note)
        raise UserError(f"{root}: no training images in folders named after classes{seen}; arrange them as CLASS/IMAGE")
    label = {name: number for number, name in enumerate(classes)}
    parts, faults = sample_parts({split: _samples(root, split, files, label) for split, files in splits.items()})
    faults = [*notes, *faults]
    return import_parts(
        folder,
        DatasetSpec(readable(root.resolve().name), "classification", tuple(classes), (PROMPT,), tuple(splits)),
        parts,
        faults,
        **settings,
    )


def _arranged(root: Path) -> _Arrangement:
    """Raises UserError where folders contradict each other."""
    found = files_below(root)
    named = _split_folders(root, found.files)
    if named["train"]:
        test = named["test"] or named["validation"]
        folders = {"train": root / named["train"], "test": root / test if test else None}
    else:
        folders = {"train": root}
    files = {split: _in_classes(folder, found.files) if folder else [] for split, folder in folders.items()}
    UserError.unless_none(fault for folder in folders.values() if folder for fault in _same_names(folder, found.files))
    if not named["train"]:
        UserError.unless_none(_too_high(root, [file.path for file in files["train"]]))
    notes = _notes(root, found, [file.path for some in files.values() for file in some])
    if len(folders) > 1 and named["validation"]:
        use = "not read, as there is a test split" if named["test"] else "used as the test split"
        notes.append(note(f"validation split, {use}", readable(str(root)), [named["validation"]]))
    notes += class_names.notes_of({file.classname for some in files.values() for file in some}, readable(str(root)))
    return _Arrangement(files if len(folders) > 1 else _divided(files["train"]), notes)


def _split_folders(root: Path, files: Sequence[Path]) -> Mapping[str, str]:
    """The folder of each split; an empty text for none."""
    parts = [path.relative_to(root).parts for path in files]
    tops = sorted({path[0] for path in parts if len(path) > 1})
    found = {split: [name for name in tops if name.lower() in names] for split, names in SPLIT_NAMES.items()}
    UserError.unless_none(
        f"{root}: {' and '.join(names)} are both the {split} split; keep one, or move the images together"
        for split, names in found.items()
        if len(names) > 1
    )
    named = {split: next(iter(names), "") for split, names in found.items()}
    if not named["train"]:
        hold_classes = {path[0] for path in parts if len(path) > 2}
        UserError.unless_none(
            f"{root}: {name} looks like the {split} split, and there is no training split; add train, or rename {name}"
            for split, name in named.items()
            if name in hold_classes
        )
    return named


def _in_classes(folder: Path, files: Sequence[Path]) -> list[_File]:
    """The images below folders of classes, class after class, and links that lead nowhere."""
    return [
        _File(path, _classname(path.relative_to(folder).parts[0]))
        for path in files
        if _is_wanted(path) and folder in path.parents and path.parent != folder
    ]


def _is_wanted(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or not path.exists()


def _same_names(folder: Path, files: Iterable[Path]) -> Iterator[str]:
    """Folders that would become one class."""
    folders: dict[str, set[str]] = {}
    for path in files:
        if folder in path.parents and path.parent != folder:
            name = path.relative_to(folder).parts[0]
            folders.setdefault(spelling(_classname(name)), set()).add(name)
    for classname, names in folders.items():
        if not classname:
            yield f"{folder}: {quoted(names)} is no name of a class; rename it"
        elif len(names) > 1:
            yield f"{folder}: {quoted(names)} are both class '{classname}'; rename one, or move the images together"


def _too_high(root: Path, images: Sequence[Path]) -> Iterator[str]:
    """A line where what the folders at the top hold shows that they are no classes."""
    parts = [path.relative_to(root).parts for path in images]
    tops, inner = sorted({path[0] for path in parts}), sorted({path[1] for path in parts if len(path) > 2})
    if any(len(path) == 2 for path in parts) or len(inner) < 2:
        return
    splits = {name.lower() for name in inner}
    if splits & SPLIT_NAMES["train"] and splits <= set().union(*SPLIT_NAMES.values()):
        yield f"{root}: {some_of(tops)} have splits within ({', '.join(inner)}); arrange them as SPLIT/CLASS"
    elif len(tops) == 1:
        text = f"its only class '{tops[0]}' has no images but in folders ({some_of(inner)})"
        yield f"{root}: {text}; give {root / tops[0]}, or move them out of their folders"


def _notes(root: Path, found: FolderFiles, used: Iterable[Path]) -> list[SampleFault]:
    """What is said of all that is not read."""
    where, read = readable(str(root)), set(used)
    dead = [path for path in found.files if path not in read and not path.exists()]
    rest = [path for path in found.files if path not in read and path.exists()]
    loose = [path for path in rest if path.suffix.lower() in SUFFIXES]
    others = [path for path in rest if path.suffix.lower() not in SUFFIXES]
    kinds = {
        "image in no folder of a class, not read": loose,
        "link to a folder that it lies in, not followed": found.loops,
    }
    return [
        *(SampleFault("missing file", "train", readable(str(path)), LEADS_NOWHERE) for path in dead),
        *(note(kind, where, _names(root, paths)) for kind, paths in kinds.items() if paths),
        *notes_on(where, hidden=_names(root, found.hidden), others=_names(root, others)),
    ]


def _names(root: Path, paths: Iterable[Path]) -> list[str]:
    return [readable(str(path.relative_to(root))) for path in paths]


def _divided(files: Sequence[_File]) -> Mapping[str, Sequence[_File]]:
    """Training and test images, where the source does not part them."""
    splits: dict[str, list[_File]] = {"train": [], "test": []}
    position = dict[str, int]()
    for file in files:
        position[file.classname] = position.get(file.classname, -1) + 1
        splits["test" if is_held_out(position[file.classname]) else "train"].append(file)
    return splits


def _classname(name: str) -> str:
    return readable(name).replace("_", " ")


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
