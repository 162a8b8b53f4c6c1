"""A photograph of the page that `time-ray ui` opens, taken by a headless Chromium."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from time_ray import python_child
from time_ray.core.errors import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
HOST = "mlflow"  # a page at 127.0.0.1 is the user's own to MLflow, which opens its assistant over a first visit
SIZE = (1461, 790)  # pixels; so wide that the table ends with a whole column
COLOURS = 255
START, LOAD = 120, 60  # seconds


def photograph(experiment: str, overrides: Sequence[str], shows: str, path: Path) -> None:
    """A PNG of the page is in the file.

    Args:
        experiment: The file of an experiment that has been swept.
        overrides: Changes to the file, such as `storage=ROOT`.
        shows: A text that is on the page once its table is filled.
        path: The PNG.

    Raises:
        UserError: There is no Chromium, the UI did not start, or the page did not fill.

    """
    browser = _browser()
    with tempfile.TemporaryDirectory() as folder, _served(experiment, overrides, Path(folder)) as page:
        taken = Path(folder, "page.png")
        words = [browser, *QUIET, f"--host-resolver-rules=MAP {HOST} 127.0.0.1", f"--user-data-dir={folder}/profile"]
        words += [f"--window-size={SIZE[0]},{SIZE[1]}", f"--virtual-time-budget={LOAD * 1000}"]
        words += ["--dump-dom", f"--screenshot={taken}", page]
        done = subprocess.run(words, capture_output=True, text=True, timeout=START + LOAD, check=False)  # noqa: S603
        if shows not in done.stdout or not taken.exists():
            raise UserError(f"{page}: the MLflow UI did not show '{shows}' within {LOAD} s; run this again")
        with Image.open(taken) as image:
            image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def _browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    raise UserError("mlflow: no Chromium found; install it (apt-get install chromium), or ask for the other pictures")


@contextmanager
def _served(experiment: str, overrides: Sequence[str], folder: Path) -> Iterator[str]:
    """The address of the experiment's page while the UI runs; what it says goes into the folder."""
    port, log = _free_port(), folder / "ui.log"
    words = ["-m", "time_ray", "ui", experiment, *overrides, "--port", str(port)]
    allowed = {
        **python_child.package_path(),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST}:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
    }
    with (
        log.open("wb") as talk,
        python_child.start(words, variables=allowed, stdout=talk, stderr=subprocess.STDOUT) as server,
    ):
        try:
            _wait(server, port, log)
            address = log.read_text(encoding="utf-8").partition("MLflow UI: ")[2].split()[0]
            yield address.replace("127.0.0.1", HOST)
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """The UI answers. UserError with what it said, if it has ended or is silent."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise UserError(*(log.read_text(encoding="utf-8").splitlines() or [f"time-ray ui: no answer within {START} s"]))
