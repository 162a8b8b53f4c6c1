"""The errors of this package: everything wrong with a request, one line each."""

import inspect
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent) + os.sep


class MergeError(ValueError):
    """A merge that cannot be made: each fault is one line that says where, what and what to do."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(self.faults))

    @classmethod
    def unless_none(cls, faults: Iterable[str]) -> None:
        """Raise one error that holds every fault, or return if there is none."""
        found = tuple(faults)
        if found:
            raise cls(*found)


class TechniqueError(MergeError):
    """A technique from outside this package failed, or did what no technique may do."""

    @classmethod
    def from_exception(cls, origin: str, where: str, error: Exception) -> "TechniqueError":
        """The error for what was raised in code from outside; `origin` is where that code begins."""
        frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        outside = [(file, line) for file, line in frames if not file.startswith(HERE)]
        # The last line that ran in the technique's own file says more than a line within torch.
        lines = [f"{file}:{line}" for file, line in outside if file == outside[0][0]]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return cls(f"{lines[-1] if lines else origin}: {where}: {text}; correct the technique")


def origin_of(code: Callable[..., Any]) -> str:
    """The file and line at which a function or class begins, as messages name them."""
    functions = [one for one in (code, *vars(code).values()) if inspect.isfunction(one)]
    places = [f"{one.__code__.co_filename}:{one.__code__.co_firstlineno}" for one in functions]
    return places[0] if places else code.__module__


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """The faults of an error that is raised inside join the list; what comes after goes on."""
    try:
        yield
    except MergeError as error:
        faults += error.faults
