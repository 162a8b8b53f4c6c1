"""Bytes under one root: local disk, NFS or object storage, all through pyarrow.fs.

A file is written once, under a name nobody else uses, and never appended to or renamed into its place:
that is what every kind of storage can do. (A lease's holder rewrites its own; what is damaged is moved out of the way.)
"""

import os
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from time_ray.core.errors import StoreError, UserError


class Files:
    """Read and write bytes by path relative to a root. Failures are StoreError, with the path and the cause."""

    def __init__(self, root: str) -> None:
        self.uri = root if "://" in root else str(Path(root).expanduser().absolute())
        self.is_local = "://" not in root or root.startswith("file://")
        self.filesystem, self.root = _connect(self.uri)

    @property
    def shown(self) -> str:
        """The root as people may read it: without the query and the user, which may hold secrets."""
        return _without_secrets(self.uri)

    def path(self, *parts: str) -> str:
        """The full path, in the filesystem's own form, of something under the root."""
        return "/".join([self.root.rstrip("/"), *parts])

    def read(self, *parts: str) -> bytes:
        """The whole content of a file."""
        path = self.path(*parts)
        try:
            with self.filesystem.open_input_file(path) as file:
                return bytes(file.read())
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    def write(self, data: bytes, *parts: str) -> None:
        """The file holds the data, and its folder exists."""
        path = self.path(*parts)
        try:
            self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            with self.filesystem.open_output_stream(path) as file:
                file.write(data)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: cannot be written: {error}; free space or rights, then run it again") from error

    def delete(self, *parts: str) -> None:
        """The file is gone; it may have been gone before."""
        try:
            self.filesystem.delete_file(self.path(*parts))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{self.path(*parts)}: cannot be removed: {error}") from error

    def delete_folder(self, *parts: str) -> None:
        """The folder and all in it are gone; it may have been gone before."""
        try:
            self.filesystem.delete_dir(self.path(*parts))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{self.path(*parts)}: cannot be removed: {error}") from error

    def set_aside(self, *parts: str) -> None:
        """The file lies in the folder `damaged`, for people to look at; nothing reads it again."""
        source = self.path(*parts)
        try:
            self.filesystem.create_dir(self.path("damaged"), recursive=True)
            self.filesystem.move(source, self.path("damaged", source.rsplit("/", 1)[1]))
        except FileNotFoundError:
            return  # another process was faster
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{source}: is damaged and cannot be moved: {error}") from error

    def list(self, *parts: str, recursive: bool = False) -> list[fs.FileInfo]:
        """The files in a folder, by path; none if there is no such folder."""
        selector = fs.FileSelector(self.path(*parts), allow_not_found=True, recursive=recursive)
        try:
            found = self.filesystem.get_file_info(selector)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{selector.base_dir}: cannot be listed: {error}") from error
        return sorted((f for f in found if f.type == fs.FileType.File), key=lambda f: f.path)

    def check_writable(self) -> None:
        """Bytes can be written here; UserError otherwise, before any compute is spent."""
        probe = f".probe-{uuid.uuid4().hex}"
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
        where = _without_secrets(uri)
        raise UserError(
            f"storage: {where} is no address pyarrow.fs knows ({type(error).__name__}); use a path or s3://"
        ) from error
    return filesystem, path


def _without_secrets(uri: str) -> str:
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def default_root() -> str:
    """Where runs lie when an experiment names no storage: TIME_RAY_STORAGE, else ./runs."""
    return os.environ.get("TIME_RAY_STORAGE") or "runs"
