"""The files below a folder: links are followed, loops end, and what no person put there is passed over."""

import os
from pathlib import Path
from typing import NamedTuple

from time_ray.core.errors import UserError

SYSTEM = frozenset(
    {
        "#recycle",
        "$RECYCLE.BIN",
        "@eaDir",
        "@Recently-Snapshot",
        "@Recycle",
        "__MACOSX",
        "__pycache__",
        "desktop.ini",
        "lost+found",
        "System Volume Information",
        "Thumbs.db",
    }
)
_Identity = tuple[int, int]  # of a folder, whatever path leads to it


class FolderFiles(NamedTuple):
    """Every file below a folder, in order, with links that lead nowhere; and the paths that were passed over."""

    files: tuple[Path, ...]
    hidden: tuple[Path, ...]  # hidden files and folders, and those of systems
    loops: tuple[Path, ...]  # links to a folder that they lie in


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is not meant to be seen, or was left by a system."""
    return name.startswith(".") or name in SYSTEM


def files_below(root: Path) -> FolderFiles:
    """What lies below the folder. Raises UserError for a folder that cannot be listed."""
    found = _Found([], [], [])
    real = Path(os.path.realpath(root))
    _walk(root, frozenset(map(_identity, (real, *real.parents))), found)
    return FolderFiles(*(tuple(sorted(paths)) for paths in found))


def file_stamp(path: Path) -> str:
    """Changes when the file is another or is written, even where its size and its time of writing are put back."""
    try:
        found = path.stat()
    except OSError:  # a link that leads nowhere
        found = path.lstat()
    return f"{os.path.realpath(path)}\0{found.st_size}\0{found.st_ctime_ns}"


class _Found(NamedTuple):
    files: list[Path]
    hidden: list[Path]
    loops: list[Path]


def _walk(folder: Path, parents: frozenset[_Identity], found: _Found) -> None:
    """Add what lies below a folder, which is one of `parents`: no path leads through one of them again."""
    for path in _entries(folder):
        if is_hidden(path.name):
            found.hidden.append(path)
        elif not path.is_dir():
            found.files.append(path)
        elif (identity := _identity(path)) in parents:
            found.loops.append(path)
        else:
            _walk(path, parents | {identity}, found)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); change its rights, or move it away") from error


def _identity(folder: Path) -> _Identity:
    found = folder.stat()
    return found.st_dev, found.st_ino
