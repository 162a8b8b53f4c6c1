"""An experiment as a KubeRay job (ray.io/v1 RayJob): the experiment in a ConfigMap, and a cluster of the right sizes.

Secrets are in no manifest: pods have them from a Secret of the sweep's name.
"""

import math
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import yaml

from time_ray import __version__
from time_ray.clip.cost import size
from time_ray.cluster.shipped import Shipped
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment, Run

MOUNT = "/etc/time-ray/"
BYTES_A_PARAMETER = 4 * 4  # weights, gradients and the optimiser's two moments, in float32
PROCESS_GB = 4.0  # libraries, images that are being decoded, and what else a worker holds
HEAD = {"cpu": "2", "memory": "16Gi"}  # the driver and the coordinator
NAME_LETTERS = 47  # KubeRay makes longer names of a job's
CONFIG_MAP_BYTES = 1 << 20
STOP_SECONDS = 30


class Pod(NamedTuple):
    """A pod of the worker group: what it has, how many workers fit, and how many pods may run."""

    cpus: int
    gpus: int
    memory_gb: int
    threads: int
    most: int


def kuberay(shipped: Shipped, image: str = "") -> str:
    """The manifest: a ConfigMap with the experiment, and a RayJob.

    Raises:
        UserError: The experiment does not say how many GPUs a worker needs, or is too large for a ConfigMap.

    """
    faults = [*_unsaid(shipped.experiment.run), *_too_large(shipped)]
    UserError.unless_none(faults)
    name = _name(shipped.name)
    documents = [_config_map(shipped, name), _ray_job(shipped, name, image or f"time-ray:{__version__}")]
    return _head(shipped, name) + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def pod(experiment: Experiment) -> Pod:
    """What a worker's pod needs: the largest model of the experiment decides."""
    run = experiment.run
    gpus = run.gpus or 0.0
    share = math.floor(1 / gpus) if 0 < gpus < 1 else 1  # workers on one GPU
    parameters = max(size(model.name).total for model in experiment.model)
    memory = share * (PROCESS_GB + run.cache_gb + parameters * BYTES_A_PARAMETER / 1e9)
    return Pod(
        cpus=share * (run.threads + run.loaders),
        gpus=math.ceil(gpus),
        memory_gb=math.ceil(memory),
        threads=share * run.threads,
        most=math.ceil((run.trials or 1) * run.workers / share),
    )


def _unsaid(run: Run) -> Iterator[str]:
    if run.workers == 0:
        yield "run.workers: 0 runs in one process and asks Ray for nothing; give it 1 or more for a cluster"
    if run.gpus is None:
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
    run = shipped.experiment.run
    return (
        f"# Sweep {shipped.name} on KubeRay. The Secret first: the storage that all pods reach, MLflow, credentials.\n"
        f"#   kubectl create secret generic {name} --from-literal=TIME_RAY_STORAGE=s3://BUCKET/PATH \\\n"
        "#     --from-literal=MLFLOW_TRACKING_URI=http://MLFLOW:5000 --from-literal=AWS_ACCESS_KEY_ID=... \\\n"
        "#     --from-literal=AWS_SECRET_ACCESS_KEY=...\n"
        f"#   time-ray manifest kuberay EXP | kubectl apply -f -\n"
        f"# Pods come as trials ask for them, up to run.trials ({run.trials or 1}) x run.workers ({run.workers}).\n"
        "# Memory is for weights, gradients and optimiser of the largest model; larger batches on CPUs need more.\n"
    )


def _config_map(shipped: Shipped, name: str) -> dict[str, Any]:
    data = {_key(path): text for path, text in shipped.files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def _key(path: str) -> str:
    """A path as a key of a ConfigMap, which takes no slash; no two paths have the same."""
    return path.replace("/", "__")


def _ray_job(shipped: Shipped, name: str, image: str) -> dict[str, Any]:
    worker = pod(shipped.experiment)
    limits = {"cpu": str(worker.cpus), "memory": f"{worker.memory_gb}Gi"}
    if worker.gpus:
        limits["nvidia.com/gpu"] = str(worker.gpus)
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
                        "groupName": "workers",
                        "replicas": 0,
                        "minReplicas": 0,
                        "maxReplicas": worker.most,
                        "rayStartParams": {"num-cpus": str(worker.threads)},
                        "template": _template(shipped, name, image, limits, "ray-worker"),
                    }
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
