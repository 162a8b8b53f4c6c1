"""What MLflow holds of an experiment, as tests compare it: all of it, but for ids and times."""

import sqlite3
from typing import Any

from mlflow import MlflowClient

STATED = ("tied", "p_best", "best_length", "bound_low", "bound_high", "seeds")  # one value, which may be replaced
VOLATILE = ("mlflow.parentRunId", "mlflow.user", "mlflow.source.", "time_ray.note", "time_ray.files")


def tracked(uri: str, name: str = "tiny") -> dict[str, Any]:
    """All that MLflow holds of an experiment, but for ids and times."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=5000)
    names = {run.info.run_id: run.info.run_name for run in found}
    models = client.search_logged_models([experiment.experiment_id], max_results=50)
    digests = {model.model_id: model.tags["time_ray.digest"] for model in models}
    return {
        "experiment": dict(experiment.tags),
        "runs": sorted((described(client, run, names, digests) for run in found), key=str),
        "models": sorted(
            [
                (model.name, str(model.status), _lasting(model.tags), sorted(model.params.items()))
                for model in models
                if names[model.source_run_id]
            ]
        ),
    }


def described(client: MlflowClient, run: Any, names: dict[str, str], digests: dict[str, str]) -> dict[str, Any]:
    parent = run.data.tags.get("mlflow.parentRunId")
    kind, newest = run.data.tags["time_ray.kind"], run.data.metrics
    series = [
        key for key in newest if kind != "sweep" and not key.startswith(("system/", "cost/")) and key not in STATED
    ]
    points = {key: client.get_metric_history(run.info.run_id, key) for key in series}
    tags = {k: v for k, v in run.data.tags.items() if not k.startswith(VOLATILE)}
    for id_, name in names.items():
        tags = {key: value.replace(id_, name) for key, value in tags.items()}
    return {
        "kind": kind,
        "name": run.info.run_name,
        "status": run.info.status,
        "parent": parent and names[parent],
        "params": run.data.params,
        "tags": tags,
        "metrics": {key: sorted((point.step, point.value) for point in found) for key, found in points.items()},
        "newest": {key: value for key, value in newest.items() if not key.startswith("system/")},
        "models": [digests[output.model_id] for output in run.outputs.model_outputs],
        "inputs": sorted(
            (one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs
        ),
        "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
    }


def _lasting(tags: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(tag for tag in tags.items() if not tag[0].startswith(VOLATILE))


def points(uri: str) -> int:
    """All points of all cells, but for values that are stated once."""
    cells = "select run_uuid from tags where key = 'time_ray.kind' and value = 'cell'"
    stated = ", ".join(f"'{key}'" for key in STATED)
    return _count(uri, f"metrics where run_uuid in ({cells}) and key not in ({stated})")


def rows(uri: str) -> dict[str, int]:
    """How many rows there are, by table: nothing is doubled where these are the same."""
    tables = ("metrics", "params", "tags", "inputs", "datasets", "logged_model_metrics")
    active = {table: _count(uri, f"{table} where lifecycle_stage = 'active'") for table in ("runs", "logged_models")}
    return {**active, **{table: _count(uri, table) for table in tables}}


def _count(uri: str, what: str) -> int:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        (count,) = database.execute(f"select count(*) from {what}").fetchone()  # noqa: S608 our own words
    database.close()
    return int(count)
