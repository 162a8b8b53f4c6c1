"""Faults of an experiment, found while it is resolved: all of them are said at once, each with its place."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from time_ray import merging
from time_ray.core.errors import UserError

Place = tuple[str | int, ...]
Fault = tuple[Place, str]  # a path in the experiment, and what is wrong there


class StudyError(UserError):
    """Faults found while resolving, each with its path in the experiment."""

    def __init__(self, found: Sequence[Fault]) -> None:
        super().__init__(*(f"{'.'.join(map(str, path))}: {text}" for path, text in found))
        self.found = tuple(found)


class Faults:
    """What was found so far, so that all of it is said at once. It belongs to one function: others raise, or yield."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, faults: Iterable[Fault]) -> None:
        """These, too, each once."""
        self.found += [fault for fault in dict.fromkeys(faults) if fault not in self.found]

    @contextmanager
    def at(self, *place: str | int) -> Iterator[None]:
        """What is raised within is a fault of that place in the experiment, or of the places that it names itself."""
        try:
            yield
        except StudyError as error:
            self.add(error.found)
        except (UserError, merging.MergeError) as error:
            self.add((place, fault) for fault in error.faults)

    def unless_none(self) -> None:
        """Raise them all as one StudyError, or return if there is none."""
        if self.found:
            raise StudyError(self.found)


def same(axis: str, entries: Sequence[tuple[str, str]]) -> Iterator[Fault]:
    """Entries of an axis that are written differently and mean the same: their cells would be run twice."""
    first: dict[str, str] = {}
    for index, (label, key) in enumerate(entries):
        if key in first:
            yield (axis, index), f"'{label}' is the same as '{first[key]}'; keep one, a cell is run once"
        first.setdefault(key, label)
