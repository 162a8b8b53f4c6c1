"""Files that are nobody else's: what we make, and trust, on a machine that others use, too."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from time_ray.core.errors import UserError
from time_ray.python_child import PRIVATE

FIRST_PERSON, NOBODY = 1000, 65534  # users by number: those of the system come before
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(path: Path) -> Path:
    """The folder is there, ours, and open to us alone; a link is not followed.

    Raises:
        UserError: Something else is there, or somebody else's.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise UserError(f"{path}: is no folder of yours, and is not used; move it away") from None
        close_to_others(path)
    return path


def emptied_folder(path: Path) -> Path:
    """A private folder in which nothing is. UserError as of private_folder."""
    shutil.rmtree(private_folder(path))
    return private_folder(path)


def close_to_others(path: Path) -> None:
    """Nobody but us can read or change what is there, if it is there and ours."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
        path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


@contextmanager
def own_file(path: Path) -> Iterator[IO[bytes]]:
    """The file, for reading; nothing waits for a pipe that has its name, and no link is followed.

    Raises:
        OSError: It is no file, or somebody else's.

    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{path}: is no file of this user")
        yield file


def has_other_users() -> bool:
    """Whether a process of another person runs on this machine."""
    return any(uid >= FIRST_PERSON and uid not in (NOBODY, os.geteuid()) for uid in _users())


def _users() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            yield process.stat().st_uid


def current_umask() -> int:
    """The umask of this process."""
    before = os.umask(PRIVATE)  # what a thread makes meanwhile is private
    os.umask(before)
    return before
