"""Folders may be called anything: experiments, data, results, their database and what is made of them lie there."""

import shlex
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from PIL import Image
from sqlalchemy import make_url

from time_ray.tracking.client import open_client
from time_ray.tracking.uris import database_file, database_uri, folder_uri

EVERY = "".join(sorted(set(string.printable) - set("/\x0b\x0c\r\n\t"))) + " %41 é日"
ODD = [*"#?%&+@:;=,'\"\\ *[]{}()<>|!$^~`\t\n", "%41", "a%20b", "é日🙂", "?a=b#c", "-x"]


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and max(text) < "\ud800"))
def test_a_database_is_found_again(text: str) -> None:
    path = f"/storage/{text}/mlflow.db"
    assert make_url(database_uri(path)).database == path
    assert str(database_file(database_uri(path))) == str(Path(path))


def test_plain_paths_have_the_address_that_they_always_had() -> None:
    assert database_uri("/home/me/my runs/ü#1/mlflow.db") == "sqlite:////home/me/my runs/ü#1/mlflow.db"


@pytest.mark.parametrize("odd", ODD)
def test_mlflow_stays_in_its_folder(odd: str, drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / f"a{odd}b"
    root.mkdir()
    shutil.copy(drawn / "mlflow.db", root)
    client = open_client(database_uri(f"{root}/mlflow.db"))
    experiment = client.create_experiment("odd", artifact_location=folder_uri(f"{root}/mlartifacts/odd"))
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "text", "a.txt")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["a.txt"]
    assert (root / "mlartifacts" / "odd" / run.info.run_id / "artifacts" / "a.txt").read_text() == "text"
    assert everything_below(tmp_path) == {root.name}


def everything_below(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_letter_at_once(
    new_experiment: Callable[..., Path], tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep and what follows it, in a folder whose name holds every printable letter of ASCII, and more."""
    folder = tmp_path / EVERY
    for word, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        for split in ("train", "test"):
            (folder / "photos" / split / word).mkdir(parents=True)
            Image.new("RGB", (32, 32), colour).save(folder / "photos" / split / word / "0.png")
    data = {"adaptation": [str(folder / "photos")], "evaluation": "mini:textures"}
    path = new_experiment(folder, init="ft", deploy="ft", technique="average", data=data, stream={"tasks": 1})
    monkeypatch.chdir(tmp_path)

    swept = time_ray("sweep", path)
    assert swept.status == 0, swept.err
    assert "MLflow:" not in swept.err
    commands = [line.strip().partition("  #")[0] for line in swept.err.splitlines() if line.startswith("  time-ray")]
    assert len(commands) == 3
    assert all(shlex.split(command)[2] == str(path) for command in commands)

    client = MlflowClient(database_uri(str(folder / "runs" / "mlflow.db")))
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (model,) = client.search_logged_models([experiment.experiment_id])
    inside = (folder / "runs" / "mlartifacts" / "tiny").rglob("open_clip_model.safetensors")
    assert [model.model_id in str(file) for file in inside] == [True]

    registered = time_ray("best", path, "--register")
    assert registered.status == 0
    assert registered.err.endswith("registered: models:/time-ray-tiny@best-in-time\n")
    version = client.get_model_version_by_alias("time-ray-tiny", "best-in-time")
    assert version.source == model.artifact_location
    assert time_ray("sync", path).status == 0
    for word in ("plan", "status", "show", "budget"):
        assert time_ray(word, path).status == 0
    assert time_ray("store", "verify", folder / "runs").status == 0
    assert time_ray("store", "verify", path).status == 0
    exported = time_ray("export", path, "-o", folder / "best")
    assert exported.status == 0, exported.err
    assert Path(exported.out.rstrip("\n")).parent == folder / "best"
    open_clip.create_model(f"local-dir:{folder / 'best'}")
    assert open_clip.get_tokenizer(f"local-dir:{folder / 'best'}")(["red"]).shape == (1, 12)
    merged = time_ray("merge", exported.out[:-1], exported.out[:-1], "--base", exported.out[:-1], "-o", folder / "m")
    assert merged.status == 0, merged.err
    assert everything_below(tmp_path) == {EVERY}
    assert everything_below(folder) == {"photos", "runs", "tiny.yaml", "best", "m"}

    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("time_ray.tracking.ui.become", lambda *told: started.append(told))
    opened = time_ray("ui", path, "--port", "0")
    assert opened.status == 0, opened.err
    ((words, variables),) = started
    assert words[:3] == ["-m", "mlflow", "server"]
    assert make_url(variables["MLFLOW_BACKEND_STORE_URI"]).database == str(folder / "runs" / "mlflow.db")
