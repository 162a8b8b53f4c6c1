"""Files that are whole or not there, whoever reads them meanwhile: moved into their place, and out of it if damaged."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@contextmanager
def replacing(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """A path to write to: what lies there takes the place of `path` at the end of the block, and is gone if it raises.

    Args:
        path: the file that readers know; it may be there, and other processes may write it now.
        draft: where it is written, on the same disk; a new name beside it if none is given.

    """
    draft = path.with_name(f"{path.name}-{uuid4().hex}") if draft is None else draft
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder to write into: it takes the place of `folder` at the end of the block, and is gone if it raises.

    Whoever is killed leaves what was there, here or beside it, and a draft; names of what lies beside begin with a dot.
    """
    target = folder.resolve()
    draft, old = (target.with_name(f".{target.name}-{uuid4().hex}{end}") for end in ("", "-old"))
    draft.mkdir(parents=True)
    try:
        yield draft
        if target.exists():
            target.replace(old)
        draft.replace(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.replace(target)
        raise
    finally:
        for path in (draft, old):
            shutil.rmtree(path, ignore_errors=True)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex; they are read block by block."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def move_file(filesystem: "FileSystem", path: str, target: str) -> None:
    """The file lies at the target, on any kind of storage. Raises FileNotFoundError if another process was faster."""
    import pyarrow as pa

    try:
        filesystem.move(path, target)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):  # a kind of storage that cannot rename
        filesystem.copy_file(path, target)
        filesystem.delete_file(path)
