"""A sweep on an S3 server that fails now and then, or goes away: the same bytes, or a clear stop that resumes."""

import itertools
import threading
from pathlib import Path

import pytest
from kept import end_state, table
from s3_server import S3Server, every, refuse
from small import Small, at

from time_ray import api
from time_ray.core.errors import StoreError, UserError
from time_ray.store import files as files_module
from time_ray.store.files import Files
from time_ray.store.lease import lease


@pytest.fixture
def root(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty storage."""
    monkeypatch.setattr(files_module, "S3_ATTEMPTS", 1)
    monkeypatch.setattr(files_module, "PAUSES", (0.01, 0.01))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    Files(s3.uri("bucket")).filesystem.create_dir("bucket")
    return s3.uri("bucket/runs")


def same(small: Small, root: str) -> bool:
    return end_state(Files(root)) == small.state and table(at(small.opened, Files(root))) == small.table


def test_errors_that_pass_change_nothing(small: Small, s3: S3Server, root: str) -> None:
    with s3.troubled(every(9, "503 Slow Down", "SlowDown")):
        assert api.sweep(at(small.opened, Files(root))).exit_code == 0
    assert same(small, root)


def test_a_network_that_is_cut_for_a_while_changes_nothing(
    small: Small, s3: S3Server, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is answered for a second and a half; whoever asks gives up after half a second, and asks again."""
    monkeypatch.setattr(files_module, "S3_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(files_module, "PAUSES", (0.5,) * 10)
    seen = itertools.count()
    over = threading.Event()

    def cut(*_: object) -> None:
        number = next(seen)
        if number == 40:
            threading.Timer(1.5, over.set).start()
        if number >= 40:
            over.wait()

    with s3.troubled(cut):
        assert api.sweep(at(small.opened, Files(root))).exit_code == 0
    assert over.is_set()
    assert same(small, root)


@pytest.mark.usefixtures("as_if_dead")
@pytest.mark.parametrize("requests", [40, *(pytest.param(number, marks=pytest.mark.nightly) for number in (10, 70))])
def test_an_outage_stops_it_and_it_resumes(small: Small, s3: S3Server, root: str, requests: int) -> None:
    seen = itertools.count()
    with (
        s3.troubled(lambda _, respond: refuse(respond) if next(seen) > requests else None),
        pytest.raises(
            StoreError, match=r"^s3://bucket/runs/.*(SLOW_DOWN|503).* run the same command again: it resumes$"
        ),
    ):
        api.sweep(at(small.opened, Files(root)))
    assert api.sweep(at(small.opened, Files(root))).exit_code == 0
    assert same(small, root)


def test_a_second_sweep_is_told_who_runs_the_first(small: Small, root: str) -> None:
    with lease(Files(root), "small"), pytest.raises(UserError, match="sweep 'small' is being run by process"):
        api.sweep(at(small.opened, Files(root)))
    assert Files(root).list("weights", recursive=True) == []
