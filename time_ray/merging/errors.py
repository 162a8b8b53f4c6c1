"""The one error of this package: everything wrong with a request, one line each."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class MergeError(ValueError):
    """A merge that cannot be made: each fault is one line that says where, what and what to do."""

    def __init__(self, *faults: str) -> None:
        self.faults: tuple[str, ...] = faults
        super().__init__("\n".join(faults))

    @classmethod
    def unless_none(cls, faults: Iterable[str]) -> None:
        """Raise one error that holds every fault, or return if there is none."""
        found = tuple(faults)
        if found:
            raise cls(*found)


@contextmanager
def collecting(faults: list[str]) -> Iterator[None]:
    """The faults of an error that is raised inside join the list; what comes after goes on."""
    try:
        yield
    except MergeError as error:
        faults += error.faults
