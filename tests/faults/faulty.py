"""A storage that goes away: at a chosen write, move or removal the process dies, or the disk is full from then on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs

from time_ray.store.files import Files

WRITE_PHASES = ("before", "empty", "half", "all but the last byte", "full", "after")
OTHER_PHASES = ("before", "after")


class Crash(BaseException):
    """The process is killed."""


class Point(NamedTuple):
    """A boundary of a file operation."""

    operation: int
    phase: str


class Operation(NamedTuple):
    """What was asked of the storage."""

    name: str
    path: str

    @property
    def phases(self) -> tuple[str, ...]:
        return WRITE_PHASES if self.name == "write" else OTHER_PHASES


class Faulty(fs.FileSystemHandler):
    """A local file system that fails at a point: `fail` raises, and what it raises is raised ever after."""

    def __init__(self, point: Point | None = None, error: Callable[[], BaseException] = Crash) -> None:
        self.disk = fs.LocalFileSystem()
        self.operations: list[Operation] = []
        self.failed = False
        self._point = point
        self._error = error

    def files(self, root: Path) -> Files:
        """The storage as time_ray knows it."""
        files = Files(str(root))
        files.filesystem = fs.PyFileSystem(self)
        return files

    @property
    def points(self) -> list[Point]:
        """Every boundary of every operation so far."""
        return [Point(n, phase) for n, operation in enumerate(self.operations) for phase in operation.phases]

    def fail(self) -> None:
        self.failed = True
        raise self._error()

    def alive(self) -> None:
        """A dead process does nothing at all, not even in a finally."""
        if self.failed and self._error is Crash:
            self.fail()

    def change(self, name: str, path: str, do: Callable[[], Any]) -> None:
        """An operation that changes something, with its boundaries."""
        phase = self.begin(name, path)
        if phase == "before":
            self.fail()
        do()
        if phase == "after":
            self.fail()

    def begin(self, name: str, path: str) -> str | None:
        """The phase at which this operation fails, if it does."""
        self.alive()
        if self.failed and name != "delete":
            self.fail()
        self.operations.append(Operation(name, path))
        number = len(self.operations) - 1
        return self._point.phase if self._point and self._point.operation == number else None

    def get_type_name(self) -> str:
        return "faulty"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        self.alive()
        return self.disk.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        self.alive()
        return self.disk.get_file_info(selector)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        self.alive()
        return self.disk.open_input_stream(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        self.alive()
        return self.disk.open_input_file(path)

    def open_output_stream(self, path: str, _: object) -> pa.NativeFile:
        phase = self.begin("write", path)
        if phase == "before":
            self.fail()
        return pa.PythonFile(_Stream(self, path, phase), mode="w")

    def open_append_stream(self, *_: object) -> pa.NativeFile:
        raise AssertionError("nothing may rely on appending")

    def create_dir(self, path: str, recursive: bool) -> None:
        if Path(path).is_dir():
            self.alive()
            return
        self.change("create_dir", path, lambda: self.disk.create_dir(path, recursive=recursive))

    def delete_file(self, path: str) -> None:
        self.change("delete", path, lambda: self.disk.delete_file(path))

    def delete_dir(self, path: str) -> None:
        self.change("delete", path, lambda: self.disk.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        self.change("delete", path, lambda: self.disk.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        raise AssertionError("nothing may remove everything")

    def move(self, src: str, dest: str) -> None:
        self.change("move", src, lambda: self.disk.move(src, dest))

    def copy_file(self, src: str, dest: str) -> None:
        self.change("copy", src, lambda: self.disk.copy_file(src, dest))


class _Stream:
    """A file that is being written."""

    closed = False

    def __init__(self, faulty: Faulty, path: str, phase: str | None) -> None:
        self._faulty = faulty
        self._phase = phase
        self._file = Path(path).open("wb", buffering=0)  # noqa: SIM115 it outlives this call
        if phase == "empty":
            self._fail()

    def write(self, data: bytes) -> int:
        self._faulty.alive()
        kept = {"half": len(data) // 2, "all but the last byte": len(data) - 1}.get(self._phase or "", len(data))
        self._file.write(memoryview(data)[:kept])
        if self._phase in ("half", "all but the last byte", "full"):
            self._fail()
        return len(data)

    def flush(self) -> None:
        self._faulty.alive()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._file.close()
        if self._phase and not self._faulty.failed:  # afterwards, or nothing was ever written
            self._faulty.fail()

    def _fail(self) -> None:
        self._file.close()
        self.closed = True
        self._faulty.fail()


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only() -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS))
