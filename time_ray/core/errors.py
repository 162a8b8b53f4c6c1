"""Faults that a person can mend: one line each, all of them at once."""

from collections.abc import Iterable


class UserError(Exception):
    """Bad input, found before compute is spent: each fault is one line that says where, what and what to do."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))

    @classmethod
    def unless_none(cls, faults: Iterable[str]) -> None:
        """Raise one error that holds every fault, or return if there is none."""
        found = tuple(faults)
        if found:
            raise cls(*found)


class CellError(Exception):
    """One cell cannot go on (a NaN loss, a broken image): it fails alone, the others continue."""


class StoreError(Exception):
    """The storage cannot be read or written just now; the same command resumes once it can."""
