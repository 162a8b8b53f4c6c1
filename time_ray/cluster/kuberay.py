"""An experiment as a KubeRay job (ray.io/v1 RayJob): the experiment in a ConfigMap, and a cluster of the right sizes.

Secrets are in no manifest: pods have them from a Secret of the sweep's name.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import yaml

from time_ray import __version__
from time_ray.cluster.room import TYPE
from time_ray.cluster.shipped import Shipped
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.model_needs import Needs, needs_by_model, trained_bytes, training_bytes

MOUNT = "/etc/time-ray/"
PROCESS_GB = 4.0  # libraries, images that are being decoded, and what else a worker holds
HEAD = {"cpu": "2", "memory": "16Gi"}  # the driver and the coordinator
NAME_LETTERS = 47  # KubeRay makes longer names of a job's
CONFIG_MAP_BYTES = 1 << 20
STOP_SECONDS = 30


class Pod(NamedTuple):
    """A pod of a worker group: what it has, how many pods may run, and the models whose trials ask for it."""

    cpus: int
    gpus: int
    accelerator: str | None
    memory_gb: int
    threads: int
    most: int
    models: tuple[str, ...]

    @property
    def limits(self) -> dict[str, str]:
        """As Kubernetes takes it."""
        limits = {"cpu": str(self.cpus), "memory": f"{self.memory_gb}Gi"}
        return {**limits, "nvidia.com/gpu": str(self.gpus)} if self.gpus else limits

    @property
    def start_params(self) -> dict[str, str]:
        """What Ray is told of a node, so that it knows which pods to ask for while there are none."""
        params = {"num-cpus": str(self.threads)}
        if self.accelerator is None:
            return params
        return {**params, "resources": f'"{{\\"{TYPE}{self.accelerator}\\": 1}}"'}


def kuberay(shipped: Shipped, image: str = "") -> str:
    """The manifest: a ConfigMap with the experiment, and a RayJob.

    Raises:
        UserError: The experiment does not say how many GPUs a worker needs, or is too large for a ConfigMap.

    """
    faults = [*_unsaid(shipped.experiment), *_too_large(shipped)]
    UserError.unless_none(faults)
    name = _name(shipped.name)
    documents = [_config_map(shipped, name), _ray_job(shipped, name, image or f"time-ray:{__version__}")]
    return _head(shipped, name) + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def pods(experiment: Experiment) -> dict[str, Pod]:
    """A worker group, by name, for each kind of worker that trials of this experiment ask for."""
    needs, kinds = needs_by_model(experiment), dict[_Kind, list[str]]()
    for model, need in needs.items():
        kinds.setdefault(_Kind(need.gpus or 0.0, need.threads, need.accelerator), []).append(model)
    memory = {
        spec.label: _memory_gb(experiment, spec, need)
        for spec, need in zip(experiment.model, needs.values(), strict=True)
    }
    found = [_pod(kind, models, needs, memory, experiment.run.trials or 1) for kind, models in kinds.items()]
    return {f"workers-{number}" if len(found) > 1 else "workers": pod for number, pod in enumerate(found, start=1)}


class _Kind(NamedTuple):
    """What Ray knows of a worker's request: trials that ask for the same may land on the same pods."""

    gpus: float
    threads: int
    accelerator: str | None


def _pod(
    kind: _Kind, models: Sequence[str], needs: Mapping[str, Needs], memory: Mapping[str, float], trials: int
) -> Pod:
    share = math.floor(1 / kind.gpus) if 0 < kind.gpus < 1 else 1  # workers on one GPU
    gpus, threads = math.ceil(kind.gpus), share * kind.threads
    guests = [model for model, need in needs.items() if _fits(need, gpus, threads, kind.accelerator)]
    return Pod(
        cpus=threads + share * max(needs[model].loaders_on(None) for model in models),
        gpus=gpus,
        accelerator=kind.accelerator,
        memory_gb=math.ceil(share * max(memory[model] for model in guests)),
        threads=threads,
        most=math.ceil(trials * max(needs[model].workers for model in models) / share),
        models=tuple(models),
    )


def _fits(need: Needs, gpus: int, threads: int, accelerator: str | None) -> bool:
    """Whether Ray may place such a worker on such a pod, whatever memory it takes."""
    return (need.gpus or 0.0) <= gpus and need.threads <= threads and need.accelerator in (None, accelerator)


def _memory_gb(experiment: Experiment, spec: ModelSpec, need: Needs) -> float:
    """Of a worker's pod: with a GPU, activations are not among it."""
    trained = trained_bytes(experiment, spec) if need.gpus else training_bytes(experiment, spec, need)
    return PROCESS_GB + experiment.run.cache_gb + trained / 1e9


def _unsaid(experiment: Experiment) -> Iterator[str]:
    if not experiment.run.on_ray:
        yield "run.workers: 0 runs in one process and asks Ray for nothing; give it 1 or more for a cluster"
    if any(need.gpus is None for need in needs_by_model(experiment).values()):
        yield "run.gpus: no cluster can be asked yet; say how many a worker needs, as in run.gpus=1, or 0 for none"


def _too_large(shipped: Shipped) -> Iterator[str]:
    total = sum(len(text.encode()) for text in shipped.files.values())
    if total > CONFIG_MAP_BYTES:
        yield (
            f"manifest: the experiment and its files have {total} bytes, a ConfigMap takes {CONFIG_MAP_BYTES}; "
            "put the stream file where all nodes see it, or use time-ray submit"
        )


class _Dumper(yaml.SafeDumper):
    """YAML in which a text of several lines stands as it is, and what occurs twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _represented(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represented)


def _name(sweep: str) -> str:
    """A name as Kubernetes takes it: small letters, digits and dashes."""
    return f"time-ray-{re.sub(r'[^a-z0-9]+', '-', sweep.lower())}"[:NAME_LETTERS].strip("-")


def _head(shipped: Shipped, name: str) -> str:
    groups = "".join(
        f"#   {group}: {', '.join(pod.models)}{_on(pod)}\n" for group, pod in pods(shipped.experiment).items()
    )
    return (
        f"# Sweep {shipped.name} on KubeRay. The Secret first: the storage that all pods reach, MLflow, credentials.\n"
        f"#   kubectl create secret generic {name} --from-literal=TIME_RAY_STORAGE=s3://BUCKET/PATH \\\n"
        "#     --from-literal=MLFLOW_TRACKING_URI=http://MLFLOW:5000 --from-literal=AWS_ACCESS_KEY_ID=... \\\n"
        "#     --from-literal=AWS_SECRET_ACCESS_KEY=...\n"
        f"#   time-ray manifest kuberay EXP | kubectl apply -f -\n"
        f"# Pods come as trials ask for them, for run.trials ({shipped.experiment.run.trials or 1}) at once. Groups:\n"
        f"{groups}"
    )


def _on(pod: Pod) -> str:
    """What only the owner of the cluster knows how to say."""
    where = f", on nodes with {pod.accelerator} GPUs: give the group your cloud's nodeSelector for these"
    return where if pod.accelerator else ""


def _config_map(shipped: Shipped, name: str) -> dict[str, Any]:
    data = {_key(path): text for path, text in shipped.files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _key(path: str) -> str:
    """A path as a key of a ConfigMap, which takes no slash; no two paths have the same."""
    return path.replace("/", "__")


def _ray_job(shipped: Shipped, name: str, image: str) -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": shipped.command,
            "runtimeEnvYAML": yaml.safe_dump({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,  # its logs can be read for so long
            "backoffLimit": 1,  # a lost head: the same command on a new cluster resumes
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"idleTimeoutSeconds": 300, "upscalingMode": "Default"},
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 within the pod's network
                    "template": _template(shipped, name, image, HEAD, "ray-head"),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": group,
                        "replicas": 0,
                        "minReplicas": 0,
                        "maxReplicas": pod.most,
                        "rayStartParams": pod.start_params,
                        "template": _template(shipped, name, image, pod.limits, "ray-worker"),
                    }
                    for group, pod in pods(shipped.experiment).items()
                ],
            },
        },
    }


def _template(shipped: Shipped, name: str, image: str, limits: dict[str, str], container: str) -> dict[str, Any]:
    items = [{"key": _key(path), "path": path} for path in shipped.files]
    return {
        "spec": {
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "envFrom": [{"secretRef": {"name": name}}],
                    "resources": {"limits": limits, "requests": dict(limits)},
                    "volumeMounts": [
                        {"name": "experiment", "mountPath": MOUNT.rstrip("/"), "readOnly": True},
                        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 Ray's object store, and PyTorch's
                    ],
                }
            ],
            "volumes": [
                {"name": "experiment", "configMap": {"name": name, "items": items}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
            ],
        }
    }
