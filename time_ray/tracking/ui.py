"""The MLflow UI on the store that sweeps write to."""

import secrets
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from time_ray import config
from time_ray.core.errors import UserError
from time_ray.core.secrets import hidden
from time_ray.private_files import emptied_folder, has_other_users, private_folder
from time_ray.python_child import become
from time_ray.store.files import Files, default_root
from time_ray.tracking.client import answering, experiment_id, tracking_uri
from time_ray.tracking.moved_storage import follow_storage
from time_ray.tracking.uris import database_file, database_uri
from time_ray.tracking.views import ANSWER, CELLS, address

USER = "admin"


def serve(exp: Path | None, overrides: Sequence[str], port: int, talk: Console, *, auth: bool = False) -> None:
    """Become the MLflow server on loopback; return if results are tracked elsewhere.

    Raises:
        UserError: The port is taken, there are no results, or a server elsewhere is to ask for a password.

    """
    experiment = config.load(exp, overrides)[0] if exp else None
    files = Files((experiment.storage if experiment else None) or default_root())
    uri = tracking_uri(files)
    remote = uri.startswith(("http://", "https://"))
    if remote and auth:
        raise UserError(f"--auth: {hidden(uri)} runs already; whoever runs it says who may open it")
    file = database_file(uri)
    if file is not None and not file.exists():
        raise UserError(f"{file}: no results here yet; run a sweep first, or name its experiment")
    if not remote:
        _check_free(port)
        with answering(uri):
            follow_storage(uri, files)
    server = hidden(uri).rstrip("/") if remote else f"http://127.0.0.1:{port}"
    found = experiment_id(uri, experiment.name) if experiment else None
    end = "" if remote else " (Ctrl-C ends it)"
    talk.print(f"MLflow UI: {server}/{address(found, ANSWER) if found else ''}{end}", soft_wrap=True)
    if found:
        talk.print(f"  as a table: {server}/{address(found, CELLS)}", soft_wrap=True)
    if remote:
        return
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    variables = {"MLFLOW_BACKEND_STORE_URI": uri}  # which may hold a password, and arguments are there for all to read
    if auth:
        words += ["--app-name", "basic-auth"]
        variables |= _with_password(port, talk)
    elif has_other_users():
        talk.print("note: other users of this machine can open this, and change it; --auth asks for a password")
    become(words, variables)


def _with_password(port: int, talk: Console) -> dict[str, str]:
    """What tells MLflow to ask for a password, which people are told, and which is new at every start."""
    if find_spec("flask_wtf") is None:
        raise UserError("--auth: MLflow needs the package Flask-WTF for it; run: pip install 'mlflow[auth]'")
    folder = emptied_folder(private_folder(Path.home() / ".time_ray") / f"ui-{port}")
    database = database_uri(str(folder / "users.db"))
    settings = {"default_permission": "NO_PERMISSIONS", "database_uri": database, "admin_username": USER}
    lines = ["[mlflow]", *(f"{name} = {value.replace('%', '%%')}" for name, value in settings.items())]
    (folder / "auth.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
    password = secrets.token_urlsafe(16)
    talk.print(f"  user {USER}, password {password}")
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        "TMPDIR": str(folder),  # MLflow has names of its own in the shared one
    }


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            msg = f"--port {port}: taken ({error.strerror}); choose another, as in --port {port + 1}"
            raise UserError(msg) from None
