"""Faults that a person can mend: one line each, all of them at once."""

import difflib
from collections.abc import Iterable
from itertools import islice


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


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a fault: the known word that was meant, if one is near."""
    close = closest(word, known)
    return f"; did you mean '{close}'?" if close else ""


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that is nearest, in whatever case; empty if none is near."""
    in_lower_case = {one.lower(): one for one in known}
    close = difflib.get_close_matches(word.lower(), in_lower_case, n=1)
    return in_lower_case[close[0]] if close else ""


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """The fault of a word that is none of those known: the nearest of them is named, or else all."""
    names = list(known)
    return f"no such {what} '{word}'{nearest(word, names) or '; known: ' + ', '.join(names)}"


def some_of(texts: Iterable[str], most: int = 3) -> str:
    """The first few of many texts, and how many more there are."""
    each = iter(texts)
    shown = ", ".join(islice(each, most))
    rest = sum(1 for _ in each)
    return f"{shown} and {rest} more" if rest else shown


class CellError(Exception):
    """One cell cannot go on (a NaN loss, a broken image): it fails alone, the others continue."""


class ClusterError(Exception):
    """The cluster lost something, or refuses it just now; what is stored stays, and the same command goes on."""


class StoreError(Exception):
    """The storage cannot be read or written just now; the same command resumes once it can."""
