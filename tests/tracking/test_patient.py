"""An MLflow that loses answers, or is too busy, time and again: every request is repeated by itself, and all arrive."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flaky_proxy import LOST, FlakyProxy, Trouble
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_server import Server
from mlflow_state import tracked

from time_ray import api
from time_ray.tracking import mlflow_sync, patient, tracker
from time_ray.tracking.client import open_client
from time_ray.tracking.patient import PatientClient, may_pass

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": ["ft", "all"], "technique": "average"}


class Flaky:
    """A client that loses three answers of ten, half of them before the request was carried out."""

    def __init__(self, client: Any, seed: int) -> None:
        self._client = client
        self._chance = random.Random(seed)
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        whole = getattr(self._client, name)
        if not callable(whole):
            return whole

        def call(*args: Any, **kwargs: Any) -> Any:
            luck = self._chance.random()
            found = None if luck < 0.15 else whole(*args, **kwargs)
            if luck < 0.3:
                self.lost += 1
                raise ConnectionError("the answer was lost")
            return found

        return call


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are counted, not made."""
    pauses: list[float] = []
    monkeypatch.setattr(patient.time, "sleep", pauses.append)
    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 0.01)
    return pauses


def test_three_answers_of_ten_are_lost_and_one_sync_is_enough(
    new_experiment: Make, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL))
    assert api.sweep(opened).tracking_error is None
    before = tracked(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    hurried.clear()
    shutil.copy(drawn / "mlflow.db", tmp_path)
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    flaky = Flaky(open_client(uri), seed=1)
    monkeypatch.setattr(tracker, "open_client", lambda _, **__: flaky)
    monkeypatch.setattr(mlflow_sync, "LAST_TRIES", 1)
    assert api.sync(opened) is None
    assert tracked(uri) == before
    assert flaky.lost >= len(hurried) > 10


def failing(error: Exception) -> Any:
    class Client:
        asked = 0

        def get_run(self, _: str) -> None:
            self.asked += 1
            raise error

    return Client()


def test_pauses_grow_within_a_budget(hurried: list[float]) -> None:
    client = failing(ConnectionResetError("by peer"))
    asking = PatientClient(client, budget=4.0)
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            asking.get_run("1")
    assert hurried == [0.1, 0.2, 0.4, 0.8, 1.6, 0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError("nobody"), MlflowException("no such run", 1000), sqlite3.DatabaseError("malformed")],
)
def test_what_will_not_pass_is_not_asked_again(error: Exception, hurried: list[float]) -> None:
    client = failing(error)
    with pytest.raises(type(error)):
        PatientClient(client).get_run("1")
    assert (client.asked, hurried) == (1, [])


@pytest.mark.parametrize(
    ("trouble", "passes"),
    [(lambda _: LOST, True), (lambda _: 503, True), (lambda _: 429, True), (lambda _: 404, False)],
)
def test_whether_trouble_may_pass(trouble: Trouble, monkeypatch: pytest.MonkeyPatch, *, passes: bool) -> None:
    upstream = FlakyProxy("http://127.0.0.1:1", lambda _: 200)
    proxy = FlakyProxy(upstream.uri, trouble)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as found:
        MlflowClient(proxy.uri).get_run("1")
    assert may_pass(found.value) is passes
    for one in (proxy, upstream):
        one.stop()


def test_a_server_that_is_not_there_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowException) as found:
        MlflowClient("http://127.0.0.1:1").get_run("1")
    assert not may_pass(found.value)


def loses(chance: random.Random) -> int | None:
    return LOST if chance.random() < 0.3 else None


def is_busy(chance: random.Random) -> int | None:
    return chance.choice([429, 500, 503]) if chance.random() < 0.2 else None


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("trouble", [loses, is_busy])
def test_all_cells_arrive_within_three_syncs(
    new_experiment: Make, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Trouble
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, init=["ft", "ema"], technique="average"))
    assert api.sweep(opened).tracking_error is None
    before = tracked(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(drawn / "mlflow.db", folder)
    server = Server(folder)
    server.start()
    proxy = FlakyProxy(server.uri, trouble)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    lags = []
    while not lags or (lags[-1] is not None and len(lags) < 3):
        lags.append(api.sync(opened))
    print(lags, proxy.requests, proxy.troubled)
    assert lags[-1] is None
    assert tracked(server.uri) == before
    proxy.stop()
    server.kill()
