"""Files that MLflow was given: what is flipped, emptied or lost there is noticed by sync and best, and given again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow_state import tracked

from time_ray import api
from time_ray.whole_files import file_digest

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": "ft", "technique": "average", "seed": [0, 1]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> api.Opened:
    opened = api.open_experiment(new_experiment(tmp_path_factory.mktemp("swept"), **SMALL))
    assert api.sweep(opened).tracking_error is None
    return opened


def kept(opened: api.Opened) -> dict[str, str]:
    """Every artifact, by its digest; of what says when it was written only whether it is there."""
    root = Path(opened.files.path("mlartifacts"))
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): path.name if path.name == "MLmodel" else file_digest(path) for path in files}


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("strike", [flip, empty, delete])
def test_whatever_becomes_of_artifacts_sync_mends_it(swept: api.Opened, strike: Callable[[Path], None]) -> None:
    uri = f"sqlite:///{swept.files.path('mlflow.db')}"
    before, state = kept(swept), tracked(uri)
    assert any(name.endswith("model.safetensors") for name in before)
    for name in before:
        strike(Path(name))
    assert kept(swept) != before
    assert api.sync(swept) is None
    assert kept(swept) == before
    assert tracked(uri) == state
    times = [Path(name).stat().st_mtime_ns for name in before]
    assert api.sync(swept) is None
    assert [Path(name).stat().st_mtime_ns for name in before] == times


def test_what_is_registered_is_whole(swept: api.Opened) -> None:
    before = kept(swept)
    found = api.best(swept)
    (weights,) = (
        name
        for name, digest in before.items()
        if digest == str((found.winner.weights or {})["digest"]) and "models" in name
    )
    flip(Path(weights))
    api.register(swept, found)
    assert kept(swept)[weights] == before[weights]
    shutil.rmtree(Path(weights).parent)
    api.register(swept, found)
    assert kept(swept) == before
