"""Sweeps of a signed store end as others do, and results that a co-tenant slips in are made again, not shown."""

import json
from pathlib import Path

import pytest
from kept import end_state, table
from s3_server import S3Server
from small import Small, at
from typer.testing import CliRunner

from time_ray import api
from time_ray.cli import app
from time_ray.core.errors import UserError
from time_ray.store.files import Files
from time_ray.store.sealed import sealed
from time_ray.store.signing import KEY

SECRET = "never-to-be-shown-at-all"  # noqa: S105


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty storage, which is to be signed."""
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts of a database elsewhere
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    if request.param == "disk":
        return str(tmp_path / "runs")
    s3: S3Server = request.getfixturevalue("s3")
    Files(s3.uri("bucket")).filesystem.create_dir("bucket")
    return s3.uri("bucket/runs")


def forge_scores(files: Files) -> None:
    """Every score is a hundred, in well sealed entries."""
    for file in files.list("scores", recursive=True):
        path = file.path[len(files.path("")) :]
        entry = json.loads(files.read(path).rpartition(b"\n")[0].rpartition(b"\n")[0])
        entry["accuracy"] = dict.fromkeys(entry["accuracy"], 100.0)
        files.delete(path)
        data = sealed(entry)
        files.write(data, f"{path.rpartition('/')[0]}/forged-{len(data)}.json")


def test_a_signed_sweep_ends_as_any_other(small: Small, root: str, tmp_path: Path) -> None:
    opened = at(small.opened, Files(root))
    assert api.sweep(opened).exit_code == 0
    assert (end_state(opened.files), table(opened)) == (small.state, small.table)
    assert [item for item in api.store_verify(root) if item.fault] == []
    assert list(api.store_gc([opened], young=True, dry=True)) == []
    assert api.export(opened, "init=ema", tmp_path / "out").stat().st_size > 0
    forge_scores(opened.files)
    assert not [row for result in api.status(opened) for row in result.rows]
    assert api.sweep(at(small.opened, Files(root))).exit_code == 0
    assert (end_state(opened.files), table(opened)) == (small.state, small.table)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in left


def test_signing_is_switched_on_by_a_command(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = at(small.opened, Files(str(tmp_path / "runs")))
    assert api.sweep(opened).exit_code == 0
    monkeypatch.setenv(KEY, SECRET)
    with pytest.raises(UserError, match="run `time-ray store sign` once"):
        api.sweep(at(small.opened, Files(str(tmp_path / "runs"))))
    for said in ("entries signed; the storage is signed", "the storage is signed"):
        done = CliRunner().invoke(app, ["store", "sign", str(tmp_path / "runs")])
        assert done.exit_code == 0
        assert said in done.output + capsys.readouterr().err
        assert SECRET not in done.output
    opened = at(small.opened, Files(str(tmp_path / "runs")))
    assert api.sweep(opened).exit_code == 0
    assert (end_state(opened.files), table(opened)) == (small.state, small.table)
    monkeypatch.delenv(KEY)
    opened = at(small.opened, Files(str(tmp_path / "runs")))
    assert (end_state(opened.files), table(opened)) == (small.state, small.table)
    assert api.store_unchecked(tmp_path / "runs")
    with pytest.raises(UserError, match="is signed; set TIME_RAY_STORE_KEY"):
        api.sweep(opened)


@pytest.mark.nightly
def test_mlflow_is_told_of_what_is_signed(small: Small, root: str) -> None:
    opened = at(small.opened, Files(root))
    assert api.sweep(opened).exit_code == 0
    assert api.sync(opened) is None
    assert [item for item in api.store_verify(root) if item.fault] == []
