"""Names that files of others give to files: what may become part of a path is told here, and nowhere else."""

import re

_PLAIN = re.compile(r"[\w-]+(\.[a-z]+)?")  # words, and at most one ending
_LONGEST = 200  # file systems take 255 bytes, and more may come before or after it


def is_plain(name: str) -> bool:
    """Whether it can only be the name of a file in the folder where it is looked for, and of none that is hidden."""
    return _PLAIN.fullmatch(name) is not None and len(name.encode(errors="replace")) <= _LONGEST
