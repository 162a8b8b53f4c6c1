"""Words that strangers chose, as people may see them: nothing in them moves a cursor, turns a line or hides."""

import unicodedata

_LINES = "\n\t"
_JOINERS = "\u200c\u200d"  # letters of some scripts, and emoji, are written with them


def shown(text: str) -> str:
    """The text with every letter that is none as its escape; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(letter if _is_shown(letter) else letter.encode("unicode_escape").decode() for letter in text)


def shown_line(text: str) -> str:
    """The same on one line, whatever the text."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def _is_shown(letter: str) -> bool:
    return letter.isprintable() or letter in _LINES or letter in _JOINERS or unicodedata.category(letter) == "Zs"
