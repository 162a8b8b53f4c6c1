"""Python processes that we start: they run nothing that lies in the working folder, and write for their owner alone."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

PRIVATE = 0o077  # the umask of what is nobody else's
SAFE_PATH = "PYTHONSAFEPATH"


def start(
    words: Sequence[str],
    *,
    variables: Mapping[str, str | None] | None = None,
    stdin: int | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    session: bool = False,
) -> "subprocess.Popen[bytes]":
    """A Python process has started.

    Args:
        words: What follows Python on the command line, where every user of the machine can read it.
        variables: Changes to our environment, which nobody else can read; None: taken out of it.
        stdin: As subprocess takes it.
        stdout: The same.
        stderr: The same.
        session: Whether it leads a session of its own, so that Ctrl-C is not for it.

    """
    return subprocess.Popen(  # noqa: S603 the one place where Python is started
        [sys.executable, "-P", *words],
        env=environment(variables or {}),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=session,
        umask=PRIVATE,
    )


def become(words: Sequence[str], variables: Mapping[str, str | None]) -> NoReturn:
    """We are the Python process from now on: whatever ends the one ends the other."""
    os.umask(PRIVATE)
    os.execve(sys.executable, [sys.executable, "-P", *words], environment(variables))  # noqa: S606


def environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Ours with changes; by it, children of children find no modules in the working folder either."""
    changed = {**os.environ, "PYTHONPATH": python_path(), **variables, SAFE_PATH: "1"}
    return {name: value for name, value in changed.items() if value is not None}


def python_path(*first: str) -> str | None:
    """PYTHONPATH with folders before what it names; what is empty there would be the working folder to Python."""
    return os.pathsep.join(filter(None, [*first, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])) or None


def package_path() -> dict[str, str | None]:
    """The variable by which a child imports time_ray from where we did."""
    return {"PYTHONPATH": python_path(str(Path(__file__).parents[1]))}


@contextmanager
def safe_spawning() -> Iterator[None]:
    """What multiprocessing spawns while the block runs finds no modules in the working folder."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
