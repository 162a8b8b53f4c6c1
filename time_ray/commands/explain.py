"""Errors as people read them: a line each, what is wrong and what to do; many of one kind are summed up."""

import errno
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from json import JSONDecodeError

from time_ray.core.errors import CellError, ClusterError, StoreError, UserError
from time_ray.merging.errors import MergeError

MANY = 20  # lines of one kind are all shown
SHOWN = 3  # of more, these

AGAIN = "then run the same command again"
_OF_THE_PATH = {
    errno.ENOENT: "no such file or folder; correct the path",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
    errno.EISDIR: "is a folder; give the path of a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder; correct the path",
    errno.EEXIST: "is there already, and no folder; give another path, or remove it",
    errno.ELOOP: "its links lead in a circle; correct them",
}
_OF_THE_SYSTEM = {
    errno.ENOSPC: f"no space is left on the device; free some, {AGAIN}",
    errno.EDQUOT: f"the disk quota is used up; free some space, {AGAIN}",
    errno.EFBIG: f"the file system takes no file of this size; give another place, {AGAIN}",
    errno.EACCES: "permission denied; see to its rights, or give another path",
    errno.EPERM: "not permitted; see to its rights, or give another path",
    errno.EROFS: "the file system is read-only; give another path",
    errno.EMFILE: f"too many open files; raise the limit, as in ulimit -n 65536, {AGAIN}",
    errno.ENFILE: f"too many files are open on this machine; close some, {AGAIN}",
    errno.EIO: f"the device or the network file system fails; see to it, {AGAIN}",
    errno.ESTALE: f"the network file system has lost it; mount it anew, {AGAIN}",
    errno.ENOMEM: f"no memory is left; end other programs, {AGAIN}",
    errno.EAGAIN: f"no more processes or threads can be started; end other programs, {AGAIN}",
}
_OF_LIBRARIES: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionError, f"no connection ({{text}}); see that the other side runs and can be reached, {AGAIN}"),
    (TimeoutError, f"no answer ({{text}}); see that the other side runs and can be reached, {AGAIN}"),
    (MemoryError, f"no memory is left ({{text}}); use a smaller model or batch, or another machine, {AGAIN}"),
    (JSONDecodeError, f"a file holds no JSON ({{text}}); time-ray --debug shows where; make it anew, {AGAIN}"),
    (UnicodeError, f"a text is not in UTF-8 ({{text}}); time-ray --debug shows where; mend it, {AGAIN}"),
    (RecursionError, f"the input is nested too deeply; make it flat, {AGAIN}"),
    (ImportError, f"a package is missing or broken ({{text}}); install it, {AGAIN}"),
)
_BUG = "{kind}: {text} (time-ray --debug shows where; please report it)"
_QUOTED = re.compile(r"'([^']+)'")
_NAMES = re.compile(
    r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\([^)]*\)"  # what is quoted or in brackets
    r"|\S+:(?=\s)"  # where
    r"|\S*[\d/_\\]\S*|\S+\.\S+"  # numbers, paths, names of tensors
)


def explained(error: Exception) -> tuple[list[str], int]:
    """The lines that a person reads, and the exit status: 2 where the input is at fault, else 1."""
    if isinstance(error, (UserError, MergeError)):
        return list(error.faults), 2
    if isinstance(error, (StoreError, CellError, ClusterError)):
        return str(error).splitlines(), 1
    if isinstance(error, OSError) and error.errno in _OF_THE_PATH:
        return [f"{_where(error)}{_OF_THE_PATH[error.errno]}"], 2
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        return [f"{_where(error)}{_OF_THE_SYSTEM[error.errno]}"], 1
    mended = next((text for kind, text in _OF_LIBRARIES if isinstance(error, kind)), _BUG)
    return [mended.format(kind=type(error).__name__, text=_one_line(error))], 1


def _where(error: OSError) -> str:
    """The path that an error names, shortened: a name may be thousands of letters long."""
    name = error.filename if error.filename is not None else next(iter(_QUOTED.findall(str(error))), "")
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
    shown = text if len(text) <= 200 else f"{text[:100]}...{text[-50:]}"
    return f"{shown}: " if shown else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def summed_up(lines: Iterable[str]) -> Iterator[str]:
    """The lines in order; of more than 20 that differ in names and numbers alone, the first three and how many more.

    The one place that sums up: errors themselves hold every fault, for Python and for `--debug`.
    """
    found = [(line, kind_of(line)) for line in lines]
    counts, seen = Counter(kind for _, kind in found), Counter[str]()
    for line, kind in found:
        seen[kind] += 1
        if counts[kind] <= MANY or seen[kind] <= SHOWN:
            yield line
        elif seen[kind] == SHOWN + 1:
            yield f"... and {counts[kind] - SHOWN} more of this kind (time-ray --debug names all)"


def kind_of(line: str) -> str:
    """The line without what names or counts."""
    return re.sub(r"(?:\*\s*)+", "* ", _NAMES.sub("*", line))
