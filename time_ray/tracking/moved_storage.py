"""A storage that was moved or copied: the addresses of artifacts in its own MLflow database follow it.

MLflow keeps addresses as absolute paths. In a database that lies in the storage, all that were made for it end in
`mlartifacts/EXPERIMENT`, so what stands before that is where the storage lay then.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from time_ray.store.files import Files
from time_ray.tracking.uris import database_file, folder_uri

ARTIFACTS = "mlartifacts"
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_BUSY_SECONDS = 20.0


def follow_storage(uri: str, files: Files) -> None:
    """No address in the storage's own database points to where the storage lay before it was moved or copied.

    Nothing is changed for a database elsewhere, for artifacts that are not in this storage, or where the former path
    leads to the same folder (a link, or another mount). It is one transaction, and the second call finds nothing.

    Args:
        uri: Where results are tracked.
        files: The storage.

    Raises:
        sqlite3.Error: The database cannot be read or written.

    """
    file = database_file(uri)
    if file is None or not lies_in(files, uri):
        return
    with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS)) as database, database:
        known = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in known:
            return
        for name, before in database.execute("SELECT name, artifact_location FROM experiments").fetchall():
            if _was_moved(str(before or ""), Path(files.path(ARTIFACTS, name)), name):
                _move(database, str(before), folder_uri(files.path(ARTIFACTS, name)))


def lies_in(files: Files, uri: str) -> bool:
    """Whether results are tracked in the storage's own database, which holds nothing that the store does not have."""
    return files.is_local and database_file(uri) == Path(files.path("mlflow.db"))


def _was_moved(before: str, folder: Path, experiment: str) -> bool:
    """Whether the artifacts of an experiment lie in the folder, and its address leads elsewhere."""
    if not before.startswith("file://") or not before.endswith(f"/{ARTIFACTS}/{experiment}") or not folder.is_dir():
        return False
    former = Path(unquote(before.removeprefix("file://")))
    return not (former.exists() and former.samefile(folder))


def _move(database: sqlite3.Connection, before: str, now: str) -> None:
    for table, column in _ADDRESSES:
        database.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 names of our own
            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
        )
