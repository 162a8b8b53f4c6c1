"""The KubeRay job of an experiment: what the published RayJob asks for, and the experiment's own sizes."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from time_ray import api, config
from time_ray.cluster.kuberay import pods

Make = Callable[..., Path]


def manifest(time_ray: Callable[..., Any], path: Path, *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    done = time_ray("manifest", "kuberay", path, *words)
    assert (done.status, done.err) == (0, "")
    config_map, job = yaml.safe_load_all(done.out)
    return config_map, job


def test_the_job_runs_the_experiment_that_the_config_map_holds(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_experiment(tmp_path, run={"workers": 1, "gpus": 1, "trials": 8, "threads": 4, "loaders": 2})
    config_map, job = manifest(time_ray, path, "--image", "registry/time-ray:1")
    assert (config_map["kind"], config_map["apiVersion"], list(config_map["data"])) == (
        "ConfigMap",
        "v1",
        ["tiny.yaml"],
    )
    there = tmp_path / "there.yaml"
    there.write_text(config_map["data"]["tiny.yaml"], encoding="utf-8")
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))
    cells = [cell.key for cell in api.open_experiment(path).study.cells]
    assert [cell.key for cell in api.open_experiment(there).study.cells] == cells
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], job["metadata"]["name"]) == ("ray.io/v1", "RayJob", "time-ray-tiny")
    assert spec["entrypoint"] == "python -m time_ray sweep /etc/time-ray/tiny.yaml"
    assert spec["shutdownAfterJobFinishes"] is True
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    (group,) = cluster["workerGroupSpecs"]
    assert (group["groupName"], group["minReplicas"], group["maxReplicas"]) == ("workers", 0, 8)
    assert group["rayStartParams"] == {"num-cpus": "4"}
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "6", "memory": "9Gi", "nvidia.com/gpu": "1"}
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for container in (head, worker):
        assert container["image"] == "registry/time-ray:1"
        assert container["envFrom"] == [{"secretRef": {"name": "time-ray-tiny"}}]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/etc/time-ray", "/dev/shm"}  # noqa: S108


@pytest.mark.parametrize(
    ("run", "limits", "pods"),
    [
        ({"gpus": 0}, {"cpu": "2", "memory": "9Gi"}, 1),
        ({"gpus": 0.5, "trials": 5}, {"cpu": "4", "memory": "17Gi", "nvidia.com/gpu": "1"}, 3),
        ({"gpus": 1, "workers": 4, "trials": 2}, {"cpu": "2", "memory": "9Gi", "nvidia.com/gpu": "1"}, 8),
    ],
)
def test_pods_have_what_their_workers_need(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], run: Any, limits: Any, pods: int
) -> None:
    _, job = manifest(time_ray, new_experiment(tmp_path, run={"workers": 1, **run}))
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"] == limits
    assert group["maxReplicas"] == pods


def test_the_largest_model_decides_on_memory(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, model=["mini-tiny", "ViT-L-14"], run={"workers": 1, "gpus": 1})
    _, job = manifest(time_ray, path)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == "15Gi"  # 428 M parameters


def test_each_kind_of_worker_has_its_group(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods of a group have memory for every model whose workers Ray may place there, and a name for their GPUs."""
    sizes = {"mini-tiny": 5e6, "mini-base": 1e9, "mini-large": 2e9, "mini-tiny@w": 4e9}
    monkeypatch.setattr("time_ray.model_needs.weight_bytes", lambda spec: sizes[spec.label])
    by_model = {
        "mini-large": {"gpus": 0.5, "loaders": 3},
        "mini-tiny@w": {"workers": 2, "threads": 1, "accelerator": "H100"},
    }
    models = ["mini-tiny", "mini-base", "mini-large", {"name": "mini-tiny", "weights": "w"}]
    run = {"workers": 1, "gpus": 1, "threads": 2, "trials": 3, "by_model": by_model}
    found = pods(config.load(new_experiment(tmp_path, model=models, run=run))[0])
    assert [(pod.models, pod.most) for pod in found.values()] == [
        (("mini-tiny", "mini-base"), 3),
        (("mini-large",), 2),
        (("mini-tiny@w",), 6),
    ]
    assert [pod.limits for pod in found.values()] == [
        {"cpu": "3", "memory": "16Gi", "nvidia.com/gpu": "1"},  # half a GPU of a pod may go to the largest of these
        {"cpu": "10", "memory": "32Gi", "nvidia.com/gpu": "1"},
        {"cpu": "2", "memory": "24Gi", "nvidia.com/gpu": "1"},
    ]
    assert [pod.start_params for pod in found.values()] == [
        {"num-cpus": "2"},
        {"num-cpus": "4"},
        {"num-cpus": "1", "resources": '"{\\"accelerator_type:H100\\": 1}"'},
    ]


def test_a_manifest_names_the_models_of_its_groups(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    by_model = {"mini-base": {"accelerator": "H100"}}
    path = new_experiment(
        tmp_path, model=["mini-tiny", "mini-base"], run={"workers": 1, "gpus": 1, "by_model": by_model}
    )
    done = time_ray("manifest", "kuberay", path)
    assert "#   workers-1: mini-tiny\n#   workers-2: mini-base, on nodes with H100 GPUs: give the group" in done.out
    groups = list(yaml.safe_load_all(done.out))[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert [group["groupName"] for group in groups] == ["workers-1", "workers-2"]


def test_no_secret_is_in_a_manifest(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIME_RAY_STORAGE", "s3://bucket/x?endpoint_override=hidden:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@mlflow:5000")
    done = time_ray("manifest", "kuberay", new_experiment(tmp_path, storage=None), "run={workers: 1, gpus: 0}")
    assert done.status == 0
    assert "hidden" not in done.out
    assert "secret@" not in done.out


def test_names_are_as_kubernetes_takes_them(new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]) -> None:
    path = new_experiment(tmp_path, name="My_Sweep." + "x" * 60, run={"workers": 1, "gpus": 0})
    _, job = manifest(time_ray, path)
    assert job["metadata"]["name"] == "time-ray-my-sweep-" + "x" * 29


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["run={workers: 1}"], "run.gpus: no cluster can be asked yet; say how many a worker needs"),
        (["run={workers: 0, gpus: 0}"], "run.workers: 0 runs in one process and asks Ray for nothing"),
        (["model=ViT-B-33"], "model ViT-B-33: open_clip has no such architecture; did you mean 'ViT-B-32'?"),
        (["storage=runs"], "storage: 'runs' would lie in a Ray job's own folder"),
    ],
)
def test_what_a_manifest_cannot_say_is_one_line(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any], words: list[str], fault: str
) -> None:
    done = time_ray("manifest", "kuberay", new_experiment(tmp_path), *words)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.strip().splitlines()
    assert fault in line


def test_a_stream_that_no_config_map_holds_is_refused(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    order = tmp_path / "order.json"
    order.write_text('["' + "x" * (1 << 20) + '"]', encoding="utf-8")
    path = new_experiment(tmp_path, stream={"file": str(order)}, run={"workers": 1, "gpus": 0})
    done = time_ray("manifest", "kuberay", path)
    assert done.status == 2
    assert "a ConfigMap takes 1048576" in done.err


def test_the_dockerfile_has_the_ray_that_runs_here(time_ray: Callable[..., Any]) -> None:
    done = time_ray("manifest", "dockerfile")
    assert f"FROM ${{BASE}}{os.linesep}" in done.out
    assert f"ARG BASE=rayproject/ray:{version('ray')}-py311-gpu" in done.out
