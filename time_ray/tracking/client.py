"""Where results are tracked, and MLflow's client of it: what it reads of the environment, and what it may raise."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from time_ray.core.errors import StoreError, UserError
from time_ray.core.loopback import past_proxies
from time_ray.core.secrets import hidden
from time_ray.store.files import Files
from time_ray.tracking.database import make_database
from time_ray.tracking.uris import database_file, database_uri

# our own retries (see patient.py) find again what is there before they write; MLflow's would write blindly
_SETTINGS = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is data
}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def tracking_uri(files: Files) -> str:
    """Where results are tracked: MLFLOW_TRACKING_URI, else an SQLite file under a local storage root."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        _check(uri)
        return uri
    if not files.is_local:
        msg = f"storage: {files.shown} cannot hold an SQLite file; set MLFLOW_TRACKING_URI to an MLflow server"
        raise UserError(msg)
    return database_uri(files.path("mlflow.db"))


def _check(uri: str) -> None:
    scheme, _, rest = uri.partition("://")
    try:
        parts = urlsplit(uri)
        whole = bool(rest) and (not scheme.startswith("http") or (parts.hostname and parts.port != 0))
    except ValueError:
        whole = False
    if scheme == "databricks" or (whole and (scheme in ("http", "https") or is_database(uri))):
        return
    where = "http://HOST:PORT of an MLflow server, or a database as in sqlite:////absolute/path.db"
    raise UserError(f"MLFLOW_TRACKING_URI: '{hidden(uri)}' is no address of MLflow; write {where}")


def is_database(uri: str) -> bool:
    """Whether the address is that of a database, and not of a server."""
    return uri.partition("://")[0].partition("+")[0] in _DATABASES


def experiment_id(uri: str, name: str) -> str | None:
    """The id of an experiment, if it has been tracked. StoreError if MLflow does not answer."""
    with answering(uri):
        found = open_client(uri).get_experiment_by_name(name)
    return str(found.experiment_id) if found else None


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """What MLflow or its database refuses while the block runs is a StoreError of one line."""
    settle()
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, ImportError) as error:
        text = " ".join(str(error).split())
        why = text if len(text) <= 200 else f"{text[:200]}..."
        how = "see that it answers and is whole, then run the same command again; the results are in the store"
        raise StoreError(f"MLflow at {hidden(uri)}: {hidden(why)}; {how}") from error


def settle() -> None:
    """The environment holds what MLflow reads of it, some of it when it is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.update(past_proxies(os.environ))


def open_client(uri: str, *, replace_damaged: bool = False) -> Any:
    """A client of MLflow; an SQLite file has its schema by then, and takes several writers.

    Args:
        uri: of a server, or a database.
        replace_damaged: a damaged SQLite file may be set aside, and an empty one made.

    Raises:
        StoreError: the SQLite file is damaged and may not be replaced, or cannot be made.

    """
    settle()
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)

    if (file := database_file(uri)) is not None:
        make_database(file, replace_damaged=replace_damaged)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
