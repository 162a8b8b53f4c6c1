"""A storage that was moved or copied keeps working, MLflow included; a copy leaves the original as it was."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from time_ray import api
from time_ray.store.files import Files
from time_ray.tracking.moved_storage import follow_storage
from time_ray.tracking.uris import database_uri

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": ["ft", "all"], "technique": "average"}


class Swept:
    """A finished sweep with a registered winner, and the storage that it left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.parent / "runs"
        self.winner = self.register(self.root)

    def opened(self, root: Path, *overrides: str) -> api.Opened:
        return api.open_experiment(self.path, [f"storage={root}", *overrides])

    def register(self, root: Path, *overrides: str) -> str:
        """The sweep is done on this root, and its best cell is registered."""
        opened = self.opened(root, *overrides)
        outcome = api.sweep(opened)
        assert (outcome.exit_code, outcome.tracking_error) == (0, None)
        return api.register(opened, api.best(opened))


@pytest.fixture
def swept(new_experiment: Make, tmp_path: Path) -> Swept:
    return Swept(new_experiment(tmp_path, **SMALL))


@pytest.fixture(scope="module")
def standing(new_experiment: Make, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep whose storage stays where it is, as it is."""
    return Swept(new_experiment(tmp_path_factory.mktemp("standing"), **SMALL))


def addresses(root: Path) -> list[str]:
    """Every address of artifacts that the database of a storage holds, but for MLflow's own first experiment."""
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        found = [
            address
            for query in (
                "SELECT artifact_location FROM experiments WHERE name <> 'Default'",
                "SELECT artifact_uri FROM runs",
                "SELECT artifact_location FROM logged_models",
                "SELECT source FROM model_versions",
                "SELECT storage_location FROM model_versions",
            )
            for (address,) in database.execute(query)
        ]
    assert len(found) == 1 + 3 + 2 + 1 + 1
    return found


def downloaded(root: Path, winner: str, folder: Path) -> dict[str, bytes]:
    """The registered model, and an artifact of each run, as a client of MLflow gets them."""
    uri = database_uri(f"{root}/mlflow.db")
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    files = {}
    for run in client.search_runs([experiment.experiment_id]):
        (first, *_) = client.list_artifacts(run.info.run_id)
        files[run.info.run_name] = first.path.encode()
    model = client.get_model_version_by_alias(*winner.removeprefix("models:/").split("@"))
    for path in Path(download_artifacts(model.source, dst_path=str(folder), tracking_uri=uri)).rglob("*"):
        if path.is_file():
            files[path.name] = path.read_bytes()
    return files


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_moved_storage(swept: Swept, tmp_path: Path) -> None:
    before = downloaded(swept.root, swept.winner, tmp_path / "before")
    moved = tmp_path / "else where" / "100%"
    moved.parent.mkdir()
    swept.root.rename(moved)
    opened = swept.opened(moved)
    assert all(result.done for result in api.status(opened))
    assert api.sync(opened) is None
    assert all(
        address.startswith(f"file://{tmp_path}/else%20where/100%25/mlartifacts/") for address in addresses(moved)
    )
    assert api.register(opened, api.best(opened)) == swept.winner
    assert downloaded(moved, swept.winner, tmp_path / "after") == before
    swept.register(moved, "seed=[0,1]")  # a grid that grows writes there, too
    assert not swept.root.exists()


def test_a_copy_leaves_the_original_as_it_was(standing: Swept, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(standing.root, copy, symlinks=True)
    before = digests(standing.root)
    assert standing.register(copy) == standing.winner
    assert all(f"/{copy.name}/mlartifacts/" in address for address in addresses(copy))
    standing.register(copy, "seed=[0,1]")
    assert digests(standing.root) == before


def test_the_ui_shows_artifacts_of_a_moved_storage(
    swept: Swept, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    swept.root.rename(moved)
    started: list[dict[str, str]] = []
    monkeypatch.setattr("time_ray.tracking.ui.become", lambda _, variables: started.append(variables))
    monkeypatch.setenv("TIME_RAY_STORAGE", str(moved))
    assert time_ray("ui", "--port", "0").status == 0
    assert started == [{"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{moved}/mlflow.db"}]
    assert all(address.startswith(f"file://{moved}/mlartifacts/") for address in addresses(moved))


@pytest.mark.parametrize("elsewhere", ["a link", "a database elsewhere", "artifacts elsewhere"])
def test_what_was_not_moved_stays(standing: Swept, tmp_path: Path, elsewhere: str) -> None:
    before = addresses(standing.root)
    other = tmp_path / "other"
    if elsewhere == "a link":
        other.symlink_to(standing.root)
        follow_storage(database_uri(f"{other}/mlflow.db"), Files(str(other)))
    elif elsewhere == "a database elsewhere":
        (other / "mlartifacts" / "tiny").mkdir(parents=True)
        follow_storage(database_uri(f"{standing.root}/mlflow.db"), Files(str(other)))
    else:
        other.mkdir()
        with (
            closing(sqlite3.connect(standing.root / "mlflow.db")) as database,
            closing(sqlite3.connect(other / "mlflow.db")) as copy,
        ):
            database.backup(copy)
        follow_storage(database_uri(f"{other}/mlflow.db"), Files(str(other)))
        assert addresses(other) == before
    assert addresses(standing.root) == before
