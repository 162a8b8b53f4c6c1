"""Addresses made of paths: whatever letters a path has, it is read back as it was."""

from pathlib import Path
from urllib.parse import quote, unquote

_PLAIN = "sqlite:///"
_QUOTED = "sqlite+pysqlite:///"  # at sqlite:/// MLflow makes the folder as it is written, quotes and all


def database_uri(path: str) -> str:
    """The address of an SQLite file, for SQLAlchemy: a question mark or what looks quoted already must be quoted."""
    is_plain = "?" not in path and unquote(path) == path and path.isprintable()
    return f"{_PLAIN}{path}" if is_plain else f"{_QUOTED}{quote(path)}"


def database_file(uri: str) -> Path | None:
    """The SQLite file of an address; None for other databases, and for servers."""
    if not uri.startswith((_PLAIN, _QUOTED)):
        return None
    return Path(unquote(uri.partition(":///")[2].partition("?")[0]))


def folder_uri(path: str) -> str:
    """The address of an absolute path, for MLflow's artifacts."""
    return f"file://{quote(path)}"
