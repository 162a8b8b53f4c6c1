"""Tests run on one thread each, and see nothing of the caller's own storage, tracking or cluster."""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
from s3_server import SECRET, S3Server
from untracked import Untracked

pytest_plugins = ["small_model"]  # fixtures that tests of data and of CLIP models share

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("unhurried")

# before torch is imported: the other cores are for what runs beside
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for name in (
    "TIME_RAY_STORAGE",
    "TIME_RAY_CACHE",
    "TIME_RAY_DEBUG",
    "TIME_RAY_GIT_COMMIT",
    "MLFLOW_TRACKING_URI",
    "RAY_ADDRESS",
):
    os.environ.pop(name, None)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the suite; this one alone for single files, and for what takes the whole machine at night."""
    given = [Path(name.partition("::")[0]) for name in config.option.file_or_dir]
    at_night = "not nightly" not in config.option.markexpr
    return 0 if at_night or any(path.is_file() for path in given) else 2


TINY: dict[str, Any] = {
    "name": "tiny",
    "init": ["zs", "ft", "ema", "all"],
    "deploy": ["ft", "ema", "all"],
    "technique": ["average", {"name": "ties", "scaling": 0.5}],
    "model": "mini-tiny",
    "budget": "2 steps",
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 3},
    "training": {"batch_size": 8, "augment": "none"},
    "run": {"workers": 0},
}


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def time_ray(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """The command line, in this process."""

    def call(*words: str | Path) -> Done:
        from time_ray.cli import main

        monkeypatch.setattr(sys, "argv", ["time-ray", *map(str, words)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        else:
            status = 0
        return Done(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with the data of TINY, of few test images, and an empty MLflow database: both take seconds."""
    from time_ray.core.experiment import Experiment
    from time_ray.data.mini import world
    from time_ray.data.sources import prepare
    from time_ray.store.files import Files
    from time_ray.study import find_datasets
    from time_ray.tracking.client import open_client

    root = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "TEST_PER_CLASS", 8)
        prepare(find_datasets(Experiment(**TINY), Files(str(root))).all, lambda _: None)
    database = root / "mlflow.db"
    open_client(f"sqlite:///{database}")
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return root


@pytest.fixture(scope="session")
def blank_figures() -> Iterator[Callable[..., Any]]:
    """Every run in MLflow has one blank figure, since drawing takes longer than a tiny sweep. Gives what draws them."""
    from time_ray.tracking import pictures

    draw = pictures._drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_drawn", lambda _: iter([("tasks.svg", b"<svg/>")]))
        yield draw


@pytest.fixture
def drawn_figures(blank_figures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in MLflow have their own figures."""
    monkeypatch.setattr("time_ray.tracking.pictures._drawn", blank_figures)


@pytest.fixture(scope="session")
def new_experiment(drawn: Path, blank_figures: object) -> Callable[..., Path]:
    """An experiment file like TINY in a folder of its own, with a storage that has the data already."""

    def make(folder: Path, **changes: object) -> Path:
        import yaml

        root = folder / "runs"
        root.mkdir()
        (root / "data").symlink_to(drawn / "data")
        shutil.copy(drawn / "mlflow.db", root)
        path = folder / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, "storage": str(root), **changes}, sort_keys=False), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="module")
def untracked() -> Iterator[None]:
    """Sweeps copy nothing into MLflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time_ray.cluster.sweep.MlflowSync", Untracked)
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server without any buckets, and credentials in the environment."""
    import moto.backends

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    moto.backends.get_backend("s3").reset()
    return s3_server
