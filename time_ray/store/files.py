"""Bytes under one root: local disk, NFS or object storage, all through pyarrow.fs.

A file is written once, under a name nobody else uses, and never appended to or renamed into its place:
that is what every kind of storage can do. (A lease's holder rewrites its own; what is damaged is moved out of the way.)
"""

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from time_ray.core.errors import StoreError, UserError
from time_ray.core.secrets import hidden

BLOCK = 1 << 22
DAMAGED = "damaged"
PROBE = ".probe-"


class Files:
    """Read and write bytes by path relative to a root. Failures are StoreError, with the path and the cause."""

    def __init__(self, root: str) -> None:
        self.uri = root if "://" in root else str(Path(root).expanduser().absolute())
        self.is_local = "://" not in root or root.startswith("file://")
        self.filesystem, self.root = _connect(self.uri)

    @property
    def shown(self) -> str:
        """The root as people may read it: without the query and the user, which may hold secrets."""
        return hidden(self.uri)

    def path(self, *parts: str) -> str:
        """The full path, in the filesystem's own form, of something under the root."""
        return "/".join([self.root.rstrip("/"), *parts])

    def read(self, *parts: str) -> bytes:
        """The whole content of a file."""
        with self._doing("read", *parts) as path, self.filesystem.open_input_file(path) as file:
            return bytes(file.read())

    def find(self, *parts: str) -> bytes | None:
        """The whole content of a file; None if there is none. What cannot be read just now is another matter."""
        try:
            return self.read(*parts)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def digest(self, *parts: str) -> str:
        """The SHA-256 of a file's bytes, in hex; they are read block by block."""
        sha = hashlib.sha256()
        with self._doing("read", *parts) as path, self.filesystem.open_input_stream(path) as stream:
            while block := stream.read(BLOCK):
                sha.update(block)
        return sha.hexdigest()

    def write(self, data: bytes, *parts: str) -> None:
        """The file holds the data, and its folder exists."""
        with self._doing("written", *parts) as path:
            if self.is_local:  # object storage knows no folders
                self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            try:
                with self.filesystem.open_output_stream(path) as file:
                    file.write(data)
            except (OSError, pa.ArrowException):
                with contextlib.suppress(OSError, pa.ArrowException):  # half a file only takes room
                    self.filesystem.delete_file(path)
                raise

    def delete(self, *parts: str) -> None:
        """The file is gone; it may have been gone before."""
        with self._doing("removed", *parts) as path, contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def delete_folder(self, *parts: str) -> None:
        """The folder and all in it are gone; it may have been gone before."""
        with self._doing("removed", *parts) as path, contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(path)

    def set_aside(self, *parts: str) -> None:
        """The file lies in the folder `damaged`, for people to look at; nothing reads it again."""
        target = self.path(DAMAGED, "-".join("/".join(parts).split("/")))
        with self._doing("moved out of the way", *parts) as source, contextlib.suppress(FileNotFoundError):
            self.filesystem.create_dir(self.path(DAMAGED), recursive=True)
            try:
                self.filesystem.move(source, target)
            except FileNotFoundError:
                raise  # another process was faster
            except (OSError, pa.ArrowException):  # a kind of storage that cannot rename
                self.filesystem.copy_file(source, target)
                self.filesystem.delete_file(source)

    def list(self, *parts: str, recursive: bool = False) -> list[fs.FileInfo]:
        """The files in a folder, by path; none if there is no such folder."""
        with self._doing("listed", *parts) as path:
            found = self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=recursive))
        return sorted((f for f in found if f.type == fs.FileType.File), key=lambda f: f.path)

    @contextlib.contextmanager
    def _doing(self, what: str, *parts: str) -> Iterator[str]:
        """The full path, for something that may fail: then StoreError says where, what and what to do."""
        path = self.path(*parts)
        try:
            yield path
        except (OSError, pa.ArrowException) as error:
            where = path if self.is_local else f"{urlsplit(self.uri).scheme}://{path}"
            why = " ".join(str(error).split())
            raise StoreError(f"{where}: cannot be {what} ({why}); {_remedy(error)}") from error

    def check_writable(self) -> None:
        """Bytes can be written here; UserError otherwise, before any compute is spent."""
        probe = f"{PROBE}{uuid.uuid4().hex}"
        try:
            self.write(b"", probe)
            self.delete(probe)
        except StoreError as error:
            raise UserError(
                f"storage: {self.shown} is not writable ({error.__cause__}); set storage: or TIME_RAY_STORAGE"
            ) from error


def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException) as error:
        where = hidden(uri)
        raise UserError(
            f"storage: {where} is no address pyarrow.fs knows ({type(error).__name__}); use a path or s3://"
        ) from error
    return filesystem, path


def _remedy(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free space, then run the same command again: it resumes"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "see to the rights, then run the same command again: it resumes"
    return "see that the storage answers, then run the same command again: it resumes"


def default_root() -> str:
    """Where runs lie when an experiment names no storage: TIME_RAY_STORAGE, else ./runs."""
    return os.environ.get("TIME_RAY_STORAGE") or "runs"
