"""The MLflow UI on the store that sweeps write to."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from time_ray import config
from time_ray.core.errors import UserError
from time_ray.store.files import Files, default_root
from time_ray.tracking.client import answering, experiment_id, tracking_uri
from time_ray.tracking.moved_storage import follow_storage
from time_ray.tracking.uris import database_file
from time_ray.tracking.views import ANSWER, CELLS, address


def serve(exp: Path | None, overrides: Sequence[str], port: int, talk: Console) -> None:
    """Become the MLflow server on loopback; return if results are tracked elsewhere. UserError if the port is taken."""
    experiment = config.load(exp, overrides)[0] if exp else None
    files = Files((experiment.storage if experiment else None) or default_root())
    uri = tracking_uri(files)
    remote = uri.startswith(("http://", "https://"))
    file = database_file(uri)
    if file is not None and not file.exists():
        raise UserError(f"{file}: no results here yet; run a sweep first, or name its experiment")
    if not remote:
        _check_free(port)
        with answering(uri):
            follow_storage(uri, files)
    server = uri.rstrip("/") if remote else f"http://127.0.0.1:{port}"
    found = experiment_id(uri, experiment.name) if experiment else None
    end = "" if remote else " (Ctrl-C ends it)"
    talk.print(f"MLflow UI: {server}/{address(found, ANSWER) if found else ''}{end}", soft_wrap=True)
    if found:
        talk.print(f"  as a table: {server}/{address(found, CELLS)}", soft_wrap=True)
    if remote:
        return
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    os.execv(sys.executable, [*command, "--port", str(port), "--workers", "1"])  # noqa: S606 whatever ends us ends it


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            msg = f"--port {port}: taken ({error.strerror}); choose another, as in --port {port + 1}"
            raise UserError(msg) from None
