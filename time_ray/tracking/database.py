"""The SQLite file that MLflow writes to: made aside by one process at a time, put in place whole, set aside if damaged.

MLflow makes its schema in some fifty steps, in place. A process that is killed between them, or a second one that does
the same, leaves a file that no MLflow can use again.
"""

import fcntl
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from time_ray.core.errors import StoreError
from time_ray.store.files import DAMAGED
from time_ray.tracking.uris import database_file, database_uri

MAKING_SECONDS = 120.0  # that another process may take to make it
_PAUSE_SECONDS = 0.2
_BUSY_SECONDS = 20.0
_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside a file belongs to it
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

log = logging.getLogger(__name__)


class DamagedError(Exception):
    """The file is no database, or not a whole one."""


def make_database(file: Path, *, replace_damaged: bool = False) -> None:
    """An MLflow database lies there, whole and with all tables.

    One whose making was broken off holds nothing, and is made anew.

    Args:
        file: where.
        replace_damaged: a damaged one is set aside, into the folder `damaged` beside it, and an empty one made.

    Raises:
        StoreError: it is damaged and may not be replaced; or another process has been making it for minutes.

    """
    if _is_usable(file, replace_damaged=replace_damaged):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_name(f"{file.name}.lock")):
        if _is_usable(file, replace_damaged=replace_damaged):
            return  # another process was faster
        if file.exists():
            log.warning("%s: is damaged or half-made; set aside, and filled again from the store", file)
            _set_aside(file)
        _make(file)
        _forget(file)


def finished_cells(file: Path, experiment: str, tag: str) -> frozenset[str]:
    """Values of the tag on runs of an experiment that are finished; none where the file cannot be read."""
    query = (
        "SELECT tags.value FROM tags JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id) "
        "WHERE tags.key = ? AND experiments.name = ? AND runs.status = 'FINISHED' AND runs.lifecycle_stage = 'active'"
    )
    try:
        with closing(_reading(file)) as database:
            return frozenset(str(value) for (value,) in database.execute(query, (tag, experiment)))
    except sqlite3.Error:
        return frozenset()


def _is_usable(file: Path, *, replace_damaged: bool) -> bool:
    """Whether it is whole; else it may be made anew, or StoreError says that it must not."""
    if not file.exists():
        return False
    try:
        return _is_whole(file)
    except DamagedError as error:
        if replace_damaged:
            return False
        msg = f"MLflow at {file}: the database is damaged ({error}); restore it, or move it away and run: time-ray sync"
        raise StoreError(msg) from error


def _is_whole(file: Path) -> bool:
    """Whether all tables were made: the last step writes the first experiment. DamagedError if pages are wrong."""
    try:
        with closing(_reading(file)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DamagedError(" ".join(str(found).split()))
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            made = "experiments" in tables and database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone()
            return bool(made)
    except sqlite3.DatabaseError as error:
        if (error.sqlite_errorcode & 0xFF) in _DAMAGE:
            raise DamagedError(str(error)) from error
        raise


def _reading(file: Path) -> sqlite3.Connection:
    """Where nothing can be written, not even what SQLite keeps beside the file, nobody else writes it either."""
    how = "mode=rw" if os.access(file.parent, os.W_OK) else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(file))}?{how}", uri=True, timeout=_BUSY_SECONDS)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """No other process is in such a block; the lock of one that is killed is free."""
    until = time.monotonic() + MAKING_SECONDS
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    msg = f"{path}: another process has held it for {MAKING_SECONDS:.0f} s; end that, then try again"
                    raise StoreError(msg) from None
                time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        os.close(handle)


def _set_aside(file: Path) -> None:
    target = file.parent / DAMAGED / f"{file.name}-{uuid.uuid4().hex[:12]}"
    target.parent.mkdir(exist_ok=True)
    for end in _BESIDE:
        part = file.with_name(file.name + end)
        if part.exists():
            part.replace(target.with_name(target.name + end))


def _make(file: Path) -> None:
    """An empty database is there, in which several writers do not block each other."""
    from mlflow import MlflowClient

    for left in file.parent.glob(f"{file.name}.new-*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    draft = file.with_name(f"{file.name}.new-{uuid.uuid4().hex}")  # MLflow makes a schema once for a name
    MlflowClient(tracking_uri=database_uri(str(draft))).search_experiments(max_results=1)  # makes the schema
    _forget(draft)
    with closing(sqlite3.connect(draft)) as database:
        database.execute("PRAGMA journal_mode=WAL")  # kept in the file
    draft.replace(file)


def _forget(file: Path) -> None:
    """MLflow keeps no connection to what lay under this name before."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    for kind in (Tracking, Registry):
        for uri, engine in kind._engine_map.items():  # noqa: SLF001 MLflow has no public way
            if database_file(uri) == file:
                engine.dispose()
