"""PostgreSQL on loopback: a database of its own for a test, run by `nobody` where the test runs as root."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray_head import free_ports

START_SECONDS = 60
USER = "time_ray"


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, for SQLAlchemy. Skips where PostgreSQL or psycopg2 is not installed."""
    pytest.importorskip("psycopg2")
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as folder:
        owner = "nobody" if os.getuid() == 0 else None
        if owner:
            shutil.chown(folder, owner)
        data = Path(folder, "data")
        make = [programs / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(make, check=True, user=owner, cwd=folder, stdout=subprocess.DEVNULL)
        port = free_ports(1)[0]
        words = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]
        with subprocess.Popen(words, user=owner, cwd=folder, stderr=subprocess.DEVNULL) as server:
            try:
                _wait(port, server)
                yield f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/postgres"
            finally:
                server.terminate()


def _programs() -> Path:
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found is None and not folders:
        pytest.skip("PostgreSQL is not installed")
    return Path(found).resolve().parent if found else folders[0]


def _wait(port: int, server: "subprocess.Popen[bytes]") -> None:
    import psycopg2

    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user=USER, dbname="postgres").close()
        except psycopg2.OperationalError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return
