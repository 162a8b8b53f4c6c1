"""Another user of this machine: `nobody`, where tests run as root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def as_nobody(*words: str) -> "subprocess.CompletedProcess[str]":
    """What the command did in the hands of another user. Skips where nobody else can be had."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv")
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run([*become, *words], capture_output=True, text=True, cwd="/", check=False)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read and write, as /tmp is; its path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="open-") as name:
        folder = Path(name)
        folder.chmod(0o1777)
        yield folder
