"""Class names that nobody could tell apart: two of them are one class, or a fault of the source."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator

from time_ray.data.importers.sample_faults import SampleFault, note


def spelling(name: str) -> str:
    """The name as people see it: accents in one piece with their letters, and single spaces between words."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def faults_of(names: Iterable[str], where: str) -> Iterator[str]:
    """A line for what is no name, and for names that look the same."""
    for same in _alike(names, spelling):
        if not spelling(same[0]):
            yield f"{where}: {quoted(same)} is no name of a class; write a word"
        elif len(set(same)) > 1:
            yield f"{where}: {quoted(same)} are both class '{spelling(same[0])}'; list it once"
        elif len(same) > 1:
            yield f"{where}: class {same[0]} is listed {len(same)} times; list each class once"


def notes_of(names: Iterable[str], where: str) -> list[SampleFault]:
    """A note on names that differ in case alone: the text models of CLIP know no case."""
    alike = [name for same in _alike(names, lambda name: spelling(name).lower()) if len(same) > 1 for name in same]
    kind = "class whose name differs from another's in case alone, which CLIP does not see"
    return [note(kind, where, alike)] if alike else []


def quoted(names: Iterable[str]) -> str:
    """The names side by side, with codes for letters where they would look the same."""
    each = sorted(set(names))
    looks_same = len({unicodedata.normalize("NFC", name) for name in each}) < len(each)
    return " and ".join(ascii(name) if looks_same else f"'{name}'" for name in each)


def _alike(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return list(groups.values())
