"""Names in MLflow: words that people chose, as MLflow takes them. What it takes already stays as it is."""

import hashlib
import posixpath
import re

LENGTH = 250  # characters of a key, and of a run's name in its databases
VALUE = 6000  # characters of a parameter
TAG = 5000  # characters of a tag: what older databases hold
GROUPS = tuple(  # the first parts of keys that time_ray makes
    f"{group}/"
    for group in (
        "adaptation",
        "retention",
        "accuracy",
        "seconds",
        "performance",
        "training",
        "cost",
        "importance",
        "tuned",
        "system",
    )
)

_MARK = 12  # hex digits of a digest: what tells a changed name from every other
_LEGAL = re.compile(r"[/\w.\- :]+")
_ILLEGAL = re.compile(r"[^/\w.\- :]")
_MARKED = re.compile(rf"\.[0-9a-f]{{{_MARK}}}\Z")


def metric_key(name: str, group: str = "") -> str:
    """The key of a metric in MLflow: `GROUP/NAME`, or the name alone.

    MLflow refuses all but letters, digits, `/_.- :`, paths that are not in their shortest form, and more than 250
    characters. Such a key is written with `_` for what is refused, cut, and ends in a digest of the whole, as in
    `adaptation/cars _1999_.5d41402abc4b`. Two names never share a key: one that looks like such an ending has one, too.
    """
    key = f"{group}/{name}" if group else name
    in_its_group = bool(group) or not key.startswith(GROUPS)
    if in_its_group and _is_legal(key) and not _MARKED.search(key):
        return key
    clean = "/".join(_clean(part) for part in key.split("/"))
    digest = hashlib.sha256(f"{group}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{clean[: LENGTH - _MARK - 1]}.{digest[:_MARK]}"


def within(text: str, length: int = VALUE) -> str:
    """The text as a value that any database takes: no lone surrogates, no NUL, and no longer than that."""
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    return clean if len(clean) <= length else f"{clean[: length - 3]}..."


def _clean(part: str) -> str:
    """A part of a path that is no way up, and not empty."""
    clean = _ILLEGAL.sub("_", part)
    return f"_{clean.lstrip('.')}" if clean in ("", ".") or clean.startswith("..") else clean


def _is_legal(key: str) -> bool:
    is_path = posixpath.normpath(key) == key and not key.startswith(("/", "..")) and key != "."
    return is_path and len(key) <= LENGTH and _LEGAL.fullmatch(key) is not None
