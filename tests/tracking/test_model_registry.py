"""The registry: models of earlier versions can be loaded once they are registered, and a refusal is one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from time_ray import api
from time_ray.api import Opened
from time_ray.core.errors import StoreError
from time_ray.tracking.models import FLAVOR_TAG
from time_ray.tracking.registry import ALIAS

Make = Callable[..., Path]
NAME = "time-ray-tiny"


@pytest.fixture
def opened(tmp_path: Path, new_experiment: Make) -> Opened:
    made = api.open_experiment(new_experiment(tmp_path, init="ft", deploy="ft", technique="average"))
    assert api.sweep(made).exit_code == 0
    return made


@pytest.fixture
def client(opened: Opened) -> MlflowClient:
    return MlflowClient(f"sqlite:///{opened.files.path('mlflow.db')}")


def test_a_model_that_was_weights_alone_becomes_one_that_mlflow_loads(opened: Opened, client: MlflowClient) -> None:
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (model,) = client.search_logged_models([experiment.experiment_id])
    folder = Path(model.artifact_location.removeprefix("file://"))
    for path in (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"):
        path.unlink()
    client.delete_logged_model_tag(model.model_id, FLAVOR_TAG)
    weights = (folder / "open_clip_model.safetensors").stat()
    for _ in range(2):
        api.register(opened, api.best(opened))
        assert {"MLmodel", "classes.json", "README.md"} < {path.name for path in folder.iterdir()}
        assert (folder / "open_clip_model.safetensors").stat().st_mtime_ns == weights.st_mtime_ns
    version = client.get_model_version_by_alias(NAME, ALIAS)
    assert (version.version, version.source) == (1, model.artifact_location)
    assert f'mlflow.pyfunc.load_model("models:/{NAME}@{ALIAS}")' in version.description
    assert client.get_logged_model(model.model_id).tags[FLAVOR_TAG] == "pyfunc"


def test_a_name_that_a_prompt_has_is_refused_in_one_line(
    opened: Opened, client: MlflowClient, time_ray: Callable[..., Any]
) -> None:
    client.register_prompt(NAME, "Say {{what}}.")
    done = time_ray("best", opened.path, "--register")
    assert done.status == 1
    assert "ft" in done.out
    line = done.err.splitlines()[-1]
    assert f"'{NAME}' cannot be registered (" in line
    assert line.endswith(
        "already taken by a prompt. MLflow does not allow creating a model and a prompt with the same "
        "name.); delete that prompt there, or give the experiment another name"
    )


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("PERMISSION_DENIED", "have its administrator give this user the right to register models"),
        ("ENDPOINT_NOT_FOUND", "use a server that has a registry, or `time-ray export`"),
    ],
)
def test_what_a_registry_refuses_is_said_with_its_remedy(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, code: str, remedy: str
) -> None:
    ranked = api.best(opened)

    def refused(*_: object, **__: object) -> None:
        raise MlflowException("not for you", error_code=ErrorCode.Value(code))

    monkeypatch.setattr(MlflowClient, "create_registered_model", refused)
    with pytest.raises(StoreError, match=rf"'{NAME}' cannot be registered \(.*not for you\); {remedy}"):
        api.register(opened, ranked)
