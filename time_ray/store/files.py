"""Bytes under one root: local disk, NFS or object storage, all through pyarrow.fs.

A file is written once, under a name nobody else uses, and never appended to or renamed into its place:
that is what every kind of storage can do. (A lease's holder renews its own; what is damaged is moved out of the way.)
"""

import contextlib
import errno
import hashlib
import logging
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from time_ray.core.errors import StoreError, UserError
from time_ray.core.home import at_home
from time_ray.core.secrets import hidden
from time_ray.whole_files import move_file

BLOCK = 1 << 22
S3_CONNECT_SECONDS = 5.0
S3_SILENT_SECONDS = 20.0  # without a byte
S3_ATTEMPTS = 3  # of each request, by the AWS SDK
PAUSES = (1.0, 5.0)  # seconds before what failed over a network is done again, all of it
DAMAGED = "damaged"
PROBE = ".probe-"
LONGEST_NAME = 250  # bytes of a file's name; file systems take 255
LISTINGS = 5  # a folder that comes or goes in between makes a listing fail

log = logging.getLogger(__name__)

T = TypeVar("T")
_FAILURES = (OSError, pa.ArrowException)


class Files:
    """Read and write bytes by path relative to a root. Failures are StoreError, with the path and the cause.

    Attributes:
        landmark: A folder that is there as long as the storage is; None: the storage may be yet to be made.

    """

    def __init__(self, root: str, landmark: str | None = None) -> None:
        self.landmark = landmark
        self.uri = root if "://" in root else str(at_home(root).absolute())
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

        def act(path: str) -> bytes:
            self._check_plain(path)
            with self.filesystem.open_input_file(path) as file:
                return bytes(file.read())

        return self._do("read", act, *parts)

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

        def act(path: str) -> str:
            sha = hashlib.sha256()
            self._check_plain(path)
            with self.filesystem.open_input_stream(path, compression=None) as stream:
                while block := stream.read(BLOCK):
                    sha.update(block)
            return sha.hexdigest()

        return self._do("read", act, *parts)

    def write(self, data: bytes, *parts: str) -> None:
        """The file holds the data, and its folder exists."""

        def act(path: str) -> None:
            self.check_there()
            if self.is_local:  # object storage knows no folders
                self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            try:
                with self.filesystem.open_output_stream(path, compression=None) as file:
                    file.write(data)
            except _FAILURES:
                with contextlib.suppress(*_FAILURES):  # half a file only takes room
                    self.filesystem.delete_file(path)
                raise

        self._do("written", act, *parts)

    def renew(self, data: bytes, *parts: str) -> bool:
        """Whether the file is there; if so it counts as written just now. A disk is only told the time: no byte moves.

        Args:
            data: what the file holds, for storage that must be written to.
            parts: the path.

        """
        if self.is_local:

            def touch(path: str) -> bool:
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
                    return True
                return False

            return self._do("written", touch, *parts)
        if self.find(*parts) is None:
            return False
        self.write(data, *parts)
        return True

    def delete(self, *parts: str) -> None:
        """The file is gone; it may have been gone before. What lies outside the root stays."""

        def act(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                if self.holds(path):
                    self.filesystem.delete_file(path)

        self._do("removed", act, *parts)

    def delete_folder(self, *parts: str) -> None:
        """The folder and all in it are gone; it may have been gone before."""

        def act(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                if self.holds(f"{path}/"):
                    self.filesystem.delete_dir(path)

        self._do("removed", act, *parts)

    def set_aside(self, *parts: str) -> None:
        """The file lies in the folder `damaged`, for people to look at; nothing reads it again.

        What lies outside the root, as by a link that somebody made in it, stays where it is.
        """
        target = self.path(DAMAGED, "/".join(parts).replace("/", "-")[-LONGEST_NAME:])

        def act(path: str) -> None:
            if not (self.holds(path) and self.holds(target)):
                log.warning("%s: lies outside the storage by a link; left as it is", path)
                return
            if self.is_local:
                self.filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                move_file(self.filesystem, path, target)

        self._do("moved out of the way", act, *parts)

    def holds(self, path: str) -> bool:
        """Whether the folder of that path lies under the root, wherever links lead: others are not ours to change."""
        if not self.is_local:
            return True
        root, folder = os.path.realpath(self.root), os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        return os.path.commonpath([root, folder]) == root

    def _check_plain(self, path: str) -> None:
        """Raises OSError for a pipe or a device, which would be waited for."""
        if self.is_local and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            raise OSError(errno.EINVAL, "no plain file", path)

    def list(self, *parts: str, recursive: bool = False) -> list[fs.FileInfo]:
        """The files in a folder, by path; none if there is no such folder.

        Of all below a folder, links to folders are followed right under the root alone, so that none goes in a circle.
        """

        def act(path: str) -> list[fs.FileInfo]:
            if recursive and self.is_local:
                return sorted(_files_below(path, self.root), key=lambda f: f.path)
            selector = fs.FileSelector(path, allow_not_found=True, recursive=recursive)
            found: list[fs.FileInfo] = []
            for _ in range(LISTINGS):
                with contextlib.suppress(FileNotFoundError):
                    found = self.filesystem.get_file_info(selector)
                    break
            return sorted((f for f in found if f.type == fs.FileType.File), key=lambda f: f.path)

        return self._do("listed", act, *parts)

    def _do(self, what: str, act: Callable[[str], T], *parts: str) -> T:
        """What `act` makes of the full path; over a network it may fail a few times. StoreError says what to do."""
        path = self.path(*parts)
        pauses = iter(() if self.is_local else PAUSES)
        while True:
            try:
                return act(path)
            except _FAILURES as error:
                pause = next(pauses, None)
                if pause is None or isinstance(error, FileNotFoundError):
                    raise self._failed(what, path, error) from error
            time.sleep(pause)

    def _failed(self, what: str, path: str, error: Exception) -> StoreError:
        where = path if self.is_local else f"{urlsplit(self.uri).scheme}://{path}"
        return StoreError(f"{where}: cannot be {what} ({' '.join(str(error).split())}); {_remedy(error)}")

    def check_there(self) -> None:
        """The landmark is there. StoreError if the storage was removed: then nothing that is missing is damaged."""
        if self.is_local and self.landmark and not Path(self.path(self.landmark)).is_dir():
            raise StoreError(
                f"storage: {self.shown} is gone: it was removed or unmounted while it was in use; "
                "bring it back, or run the same command again to start anew"
            )

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


def _files_below(folder: str, root: str) -> Iterator[fs.FileInfo]:
    """The files below a folder of this machine; what goes meanwhile is passed over."""
    folders = [folder]
    while folders:
        top = folders.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(top) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=top.rstrip("/") == root.rstrip("/")):
                    folders.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file():
                        found = entry.stat()
                        yield fs.FileInfo(entry.path, fs.FileType.File, size=found.st_size, mtime_ns=found.st_mtime_ns)


def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    where = hidden(uri)
    if "@" in urlsplit(uri).netloc:
        raise UserError(
            f"storage: {where} must hold no credentials: experiments are shown and logged; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    if "#" in uri or (uri.startswith("file:") and "?" in uri):
        raise UserError(f"storage: {where} would be cut off at # or ?; write %23 or %3F, or give it as a path")
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        if isinstance(filesystem, fs.S3FileSystem):
            filesystem = _patient(filesystem, uri)
    except _FAILURES as error:
        raise UserError(
            f"storage: {where} is no address pyarrow.fs knows ({type(error).__name__}); use a path or s3://"
        ) from error
    return filesystem, path


def _patient(found: fs.S3FileSystem, uri: str) -> fs.S3FileSystem:
    """The same, with bounds: what does not answer is asked again, and given up within minutes."""
    options: dict[str, Any] = dict(parse_qsl(urlsplit(uri).query))
    options.update({name: value == "true" for name, value in options.items() if value in ("true", "false")})
    return fs.S3FileSystem(
        **{**options, "region": found.region},
        connect_timeout=S3_CONNECT_SECONDS,
        request_timeout=S3_SILENT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
        allow_delayed_open=True,  # a small file is one request
    )


def _remedy(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free space, then run the same command again: it resumes"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "see to the rights, then run the same command again: it resumes"
    if number in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EEXIST):
        return "give another path: storage: in the experiment, or TIME_RAY_STORAGE"
    return "see that the storage answers, then run the same command again: it resumes"


def default_root() -> str:
    """Where runs lie when an experiment names no storage: TIME_RAY_STORAGE, else ./runs."""
    return os.environ.get("TIME_RAY_STORAGE") or "runs"
