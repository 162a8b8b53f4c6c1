"""The MLflow UI on the store that sweeps write to."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from time_ray import config
from time_ray.cluster.tracking import tracking_uri
from time_ray.core.errors import UserError
from time_ray.store.files import Files, default_root


def serve(exp: Path | None, overrides: Sequence[str], port: int, talk: Console) -> int:
    """Run the MLflow server on loopback until it is ended; its exit status. UserError if the port is taken."""
    root = config.load(exp, overrides)[0].storage if exp else None
    uri = tracking_uri(Files(root or default_root()))
    if uri.startswith(("http://", "https://")):
        talk.print(f"results are tracked at {uri}; open it in a browser")
        return 0
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(
            f"{uri.removeprefix('sqlite:///')}: no results here yet; run a sweep first, or name its experiment"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"--port {port}: taken ({error.strerror}); choose another, as in --port {port + 1}"
            ) from None
    talk.print(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    try:
        return subprocess.run([*command, "--port", str(port), "--workers", "1"], check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return 0
