"""The MLflow UI on a machine that others use: it asks for a password, and arguments of processes hold no secret."""

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from ray_head import free_ports

from time_ray import python_child

SECRET = "41.0625"  # noqa: S105 in the address; SQLite takes it as a timeout
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def status(address: str, password: str | None) -> int:
    """How the server answers, once it does."""
    request = Request(address + SEARCH)  # noqa: S310
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
    for _ in range(600):
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310
                return int(answer.status)
        except HTTPError as error:
            error.close()
            return error.code
        except OSError:
            time.sleep(0.1)
    return 0


def arguments() -> bytes:
    """Of every process of this machine, as every user can read them."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found


@pytest.mark.parametrize("others", [False, True])
def test_a_secret_of_the_address_is_no_argument(
    drawn: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    uri = f"sqlite:///{drawn / 'mlflow.db'}?timeout={SECRET}"
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("time_ray.tracking.ui.become", lambda *told: started.append(told))
    monkeypatch.setattr("time_ray.tracking.ui.has_other_users", lambda: others)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = time_ray("ui", "--port", "0")
    assert done.status == 0, done.err
    ((words, variables),) = started
    assert SECRET not in f"{words} {done.out} {done.err}"
    assert variables == {"MLFLOW_BACKEND_STORE_URI": uri}
    assert ("other users of this machine" in done.err) == others


def test_a_server_elsewhere_is_shown_without_its_password(
    time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    assert time_ray("ui").err == "MLflow UI: http://127.0.0.1:9/\n"
    refused = time_ray("ui", "--auth")
    assert refused.status == 2
    assert refused.err == "error: --auth: http://127.0.0.1:9 runs already; whoever runs it says who may open it\n"


@pytest.mark.nightly
def test_with_auth_nobody_comes_in_without_the_password(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{drawn / 'mlflow.db'}?timeout={SECRET}")
    (port,) = free_ports(1)
    log = tmp_path / "log"
    words = ["-m", "time_ray", "ui", "--auth", "--port", str(port)]
    with (
        log.open("wb") as talk,
        python_child.start(words, variables=python_child.package_path(), stdout=talk, stderr=talk) as server,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            assert status(address, None) == 401
            said = re.search(r"user admin, password (\S+)", log.read_text())
            assert said is not None, log.read_text()
            assert status(address, said[1]) == 200
            assert status(address, f"{said[1]}x") == 401
            assert said[1].encode() not in arguments()
            assert SECRET.encode() not in arguments()
            assert str(port).encode() in arguments()
        finally:
            server.terminate()
    assert SECRET not in log.read_text()
    kept = [path for path in tmp_path.rglob("*") if ".time_ray" in path.parts]
    assert {path.name for path in kept} >= {".time_ray", f"ui-{port}", "auth.ini", "users.db"}
    assert [path for path in kept if path.stat().st_mode & 0o077] == []
    assert [path for path in kept if path.is_file() and said[1].encode() in path.read_bytes()] == []
