"""MLflow's SQLite file: however its makers are killed and whatever becomes of its bytes, results arrive in it."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow_state import tracked

from time_ray import api
from time_ray.core.errors import StoreError
from time_ray.tracking import database
from time_ray.tracking.client import open_client

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": "ft", "technique": "average"}
OPEN = "import sys; from time_ray.tracking.client import open_client; open_client(sys.argv[1]).search_experiments()"


def opener(file: Path) -> "subprocess.Popen[bytes]":
    """A process that opens the database, and makes it if it must."""
    return subprocess.Popen([sys.executable, "-c", OPEN, f"sqlite:///{file}"], stderr=subprocess.PIPE)


def half_made(file: Path, drawn: Path) -> None:
    """What MLflow leaves when it is killed in a migration: tables, a temporary one, and no experiment."""
    shutil.copy(drawn / "mlflow.db", file)
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute("DELETE FROM experiments")
        opened.execute("CREATE TABLE _alembic_tmp_runs (run_uuid VARCHAR(32))")
        opened.execute("UPDATE alembic_version SET version_num = 'bd07f7e963c5'")


def halved(file: Path, _: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def emptied(file: Path, _: Path) -> None:
    file.write_bytes(b"")


@pytest.fixture
def copied(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty database is copied instead of made, which takes seconds."""
    monkeypatch.setattr(database, "_make", lambda file: shutil.copy(drawn / "mlflow.db", file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> tuple[api.Opened, dict[str, Any]]:
    """A finished sweep of one cell, and what MLflow holds of it."""
    opened = api.open_experiment(new_experiment(tmp_path_factory.mktemp("swept"), **SMALL))
    assert api.sweep(opened).tracking_error is None
    return opened, tracked(f"sqlite:///{opened.files.path('mlflow.db')}")


def sweep_again(opened: api.Opened) -> None:
    assert api.sweep(opened).tracking_error is None


def sync(opened: api.Opened) -> None:
    assert api.sync(opened) is None


def register(opened: api.Opened) -> None:
    api.register(opened, api.best(opened))
    sync(opened)


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize(
    ("strike", "mend"),
    [(half_made, sweep_again), (emptied, sync), (halved, register)],
)
def test_a_damaged_database_of_the_storage_is_set_aside_and_filled_again(
    swept: tuple[api.Opened, dict[str, Any]],
    drawn: Path,
    strike: Callable[[Path, Path], None],
    mend: Callable[[api.Opened], None],
) -> None:
    opened, before = swept
    file = Path(opened.files.path("mlflow.db"))
    with closing(sqlite3.connect(file)) as reader:
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    strike(file, drawn)
    struck = file.read_bytes()
    mend(opened)
    assert tracked(f"sqlite:///{file}") == before
    aside = [path.read_bytes() for path in file.parent.glob("damaged/mlflow.db-*")]
    assert struck in aside


@pytest.mark.usefixtures("copied")
def test_a_database_that_is_gone_is_filled_again_by_the_same_command(
    swept: tuple[api.Opened, dict[str, Any]],
) -> None:
    """What was noted of it does not count: what it holds is looked up."""
    opened, before = swept
    file = Path(opened.files.path("mlflow.db"))
    for end in ("", "-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
    sweep_again(opened)
    assert tracked(f"sqlite:///{file}") == before


def test_a_damaged_database_of_others_is_left_alone(tmp_path: Path, drawn: Path) -> None:
    file = tmp_path / "theirs.db"
    shutil.copy(drawn / "mlflow.db", file)
    halved(file, drawn)
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"theirs.db: the database is damaged \(.*\); restore it, or move it away"):
        open_client(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_whoever_makes_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    file = tmp_path / "mlflow.db"
    monkeypatch.setattr("time_ray.tracking.database.MAKING_SECONDS", 0.3)
    with (tmp_path / "mlflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another process has held it"):
            database.make_database(file)
    assert not file.exists()


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_maker_that_is_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """Killed at ten moments while it makes the schema, which takes seconds."""
    file = tmp_path / "mlflow.db"
    for number in range(10):
        process = opener(file)
        while not list(tmp_path.glob("*.new-*")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3 * number)
        process.kill()
        process.communicate()
        if file.exists():
            break
    assert number >= 2
    last = opener(file)
    assert last.communicate()[1] == b""
    assert last.returncode == 0
    assert sorted(path.name for path in tmp_path.glob("*.new*")) == []


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_eight_at_once_make_one(tmp_path: Path) -> None:
    makers = [opener(tmp_path / "mlflow.db") for _ in range(8)]
    ended = [(maker.communicate()[1], maker.returncode) for maker in makers]
    assert ended == [(b"", 0)] * 8
