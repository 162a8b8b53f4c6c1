"""A real MLflow server on loopback, down, killed five times, and back: in the end it has every run once."""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from mlflow_server import Server
from mlflow_state import tracked

from time_ray import api
from time_ray.tracking import mlflow_sync

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]

Make = Callable[..., Path]
KILLS = 5
PASSWORD = "long-enough-1234"  # noqa: S105 of servers that live for a test


@pytest.fixture
def server(tmp_path: Path, drawn: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(drawn / "mlflow.db", folder)
    made = Server(folder)
    yield made
    made.kill()


def test_a_server_that_is_down_and_killed_and_comes_back(
    server: Server, new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path))
    assert api.sweep(opened).tracking_error is None
    before = tracked(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    lag = api.sync(opened)  # it is down
    assert lag is not None
    assert lag.startswith("24 of 24 cells are not there yet (")

    monkeypatch.setattr(mlflow_sync, "LAST_TRIES", 10_000)
    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 0.2)
    chance = random.Random(0)
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(api.sync, opened)
        for _ in range(KILLS):
            server.start()
            time.sleep(chance.uniform(0.1, 1.5))
            assert not synced.done()
            server.kill()
        server.start()
        assert synced.result(300) is None
    assert tracked(server.uri) == before
    assert api.sync(opened) is None
    assert tracked(server.uri) == before


@pytest.fixture
def guarded(tmp_path: Path, drawn: Path) -> Iterator[Server]:
    """A server that knows one host name, and users by their passwords."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    shutil.copy(drawn / "mlflow.db", folder)
    settings = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "any"}
    made = Server(folder, "--app-name", "basic-auth", "--allowed-hosts", "localhost:*", **settings)
    made.start()
    yield made
    made.kill()


def test_a_server_with_users_and_a_host_check(
    guarded: Server,
    new_experiment: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the doctor says of it comes true: it takes nothing until all is in order, and then everything."""
    path = new_experiment(tmp_path, init="ft", deploy=["ft", "all"], technique="average")
    opened = api.open_experiment(path)
    assert api.sweep(opened).exit_code == 0
    before = tracked(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    monkeypatch.setattr(mlflow_sync, "LAST_TRIES", 1)

    def found(uri: str) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (finding,) = api.doctor(path)
        assert api.sync(opened) is not None
        return finding.fault

    here = f"127.0.0.1:{guarded.port}"
    assert found(f"http://{here}") == f"refuses the host name {here}, which it was not told of (403, DNS rebinding)"
    uri = f"http://localhost:{guarded.port}"
    assert found(uri) == "asks for a user (401)"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another")
    assert found(uri) == "does not know the user admin by this password (401)"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert found(f"{uri}/elsewhere") == "has no MLflow at this path (404)"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert api.doctor(path) == []
    assert api.sync(opened) is None
    assert capsys.readouterr().out == ""  # stdout is data
    assert tracked(uri) == before

    user = {"username": "reader", "password": PASSWORD}
    posted = requests.post(f"{uri}/api/2.0/mlflow/users/create", json=user, auth=("admin", PASSWORD), timeout=60)
    assert posted.status_code == 200
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    (finding,) = api.doctor(path)
    assert finding.fault == "lets this user read the experiment 'tiny', but not write it (403)"
