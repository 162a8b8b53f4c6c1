"""The table of checks: each fault that is planted in what a machine says of itself is named, with its remedy."""

from dataclasses import replace
from typing import Any

import pytest

from time_ray.cluster.checks import CHECKS, Demands, examine
from time_ray.cluster.machine import Machine
from time_ray.core.finding import Finding

GB = 1 << 30
PACKAGES = {"torch": "2.8.0+cu128", "torchvision": "0.23.0+cu128", "ray": "2.60.0", "numpy": "2.3.4"}
TORCH = {"error": None, "cuda": "12.8", "gpus": 2, "nccl": True}
DRIVER = Machine(
    name="this machine",
    python="3.11.9",
    packages={**PACKAGES, "torch": "2.8.0+cpu"},  # a head without GPUs has another build
    torch_for="torch (==2.8.0)",
    source="abc",
    torch={**TORCH, "cuda": None, "gpus": 0, "nccl": False},
    nvidia=0,
    shared_memory=8 * GB,
    free={"/storage": 100 * GB, "/tmp": 20 * GB},  # noqa: S108 nothing is there
    open_files=(1024, 1_048_576),  # a usual soft limit: Ray raises it
    address="10.0.0.1",
    missing=(),
    environment={"http_proxy": "http://proxy:3128", "no_proxy": "localhost, .cluster.lan,10.0.0.0/8"},
    has_token=False,
)
NODE = replace(
    DRIVER,
    name="node gpu-1",
    packages=PACKAGES,
    torch=TORCH,
    nvidia=2,
    open_files=(65536, 1_048_576),
    address="10.0.0.2",
    is_here=False,
    skew=0.3,
)
DEMANDS = Demands(
    driver=DRIVER,
    requires=("torch>=2.8", "torchvision>=0.23", "ray[default,tune,train]>=2.60,<2.61", 'pytest>=8; extra == "test"'),
    num_nodes=3,
    hosts=("10.0.0.9", "mlflow.cluster.lan", "127.0.0.1", "mlflow.example.org"),
    storage="/storage",
)


def test_healthy_machines_have_nothing() -> None:
    assert list(examine(DRIVER, DEMANDS)) == []
    assert list(examine(NODE, DEMANDS)) == []


PLANTED: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("an old Python", {"python": "3.10.4"}, "python", "Python 3.10.4 is too old", "use Python 3.11 or newer"),
    ("another Python", {"python": "3.12.1"}, "python", "but the driver has 3.11.9", "the same Python"),
    (
        "a missing package",
        {"packages": {**PACKAGES, "numpy": None}},
        "packages",
        "numpy is not installed",
        "pip install numpy==2.3.4 there",
    ),
    (
        "another version",
        {"packages": {**PACKAGES, "numpy": "1.26.0"}},
        "packages",
        "numpy 1.26.0, but the driver has 2.3.4",
        "pip install numpy==2.3.4 there",
    ),
    (
        "another Ray",
        {"packages": {**PACKAGES, "ray": "2.59.1"}},
        "packages",
        "ray 2.59.1 is installed, time_ray needs ray[default,train,tune]<2.61,>=2.60",
        "pip install 'ray[",
    ),
    ("no time_ray", {"source": None}, "time_ray", "time_ray is not installed", "install the driver's commit there"),
    ("another commit", {"source": "def"}, "time_ray", "other code than the driver's", "install the same commit"),
    (
        "torchvision for another torch",
        {"torch_for": "torch (==2.7.1)"},
        "torch",
        "torchvision 0.23.0+cu128 needs torch==2.7.1, but torch 2.8.0+cu128 is installed",
        "install a pair from one index",
    ),
    (
        "torchvision that breaks",
        {"torch": {**TORCH, "error": "torchvision: RuntimeError: operator torchvision::nms does not exist"}},
        "torch",
        "cannot be imported (torchvision: RuntimeError: operator torchvision::nms does not exist)",
        "install a pair from one index",
    ),
    (
        "a torch for CPUs on a machine with GPUs",
        {"torch": {**TORCH, "cuda": None, "gpus": 0}},
        "gpus",
        "2 GPUs, but torch is built for the CPU",
        "install a torch built for CUDA",
    ),
    (
        "an old NVIDIA driver",
        {"torch": {**TORCH, "gpus": 0}},
        "gpus",
        "2 GPUs, but torch sees none",
        "new enough for CUDA 12.8",
    ),
    ("no NCCL", {"torch": {**TORCH, "nccl": False}}, "gpus", "no NCCL", "install a torch built with NCCL"),
    ("a clock ahead", {"skew": 90.2}, "clock", "its clock is 90 s ahead of the driver's", "let NTP set it"),
    ("a clock behind", {"skew": -3600.0}, "clock", "its clock is 3600 s behind the driver's", "let NTP set it"),
    (
        "a storage of its own",
        {"storage": {"read": "not there"}},
        "storage",
        "the storage /storage is not the driver's, but a folder of that machine",
        "a shared folder at the same path, or s3://",
    ),
    (
        "a storage that it cannot read",
        {"storage": {"read": "AccessDenied"}},
        "storage",
        "the storage /storage cannot be read (AccessDenied)",
        "credentials and rights",
    ),
    (
        "a read-only storage",
        {"storage": {"write": "[Errno 30] Read-only file system"}},
        "storage",
        "cannot be written ([Errno 30] Read-only file system)",
        "mount it for writing",
    ),
    (
        "a full storage",
        {"storage": {"write": "[Errno 28] No space left on device"}},
        "storage",
        "cannot be written ([Errno 28] No space left on device)",
        "free space there",
    ),
    (
        "a storage that cannot be listed",
        {"storage": {"list": "a new file is not listed"}},
        "storage",
        "cannot be listed (a new file is not listed)",
        "the right to list",
    ),
    ("a full disk", {"free": {"/data": GB // 2}}, "free space", "only 536.9 MB are free at /data", "free some"),
    ("a small /dev/shm", {"shared_memory": 64 << 20}, "shared memory", "has only 67.1 MB", "--shm-size"),
    ("no /dev/shm", {"shared_memory": None}, "shared memory", "there is no /dev/shm", "--shm-size"),
    ("few open files", {"open_files": (1024, 1_048_576)}, "open files", "only 1024 files", "ulimit -n 65536"),
    ("a name without an address", {"address": None}, "host name", "does not resolve", "/etc/hosts of all machines"),
    (
        "a name that leads to itself",
        {"address": "127.0.1.1"},
        "host name",
        "resolves to 127.0.1.1, where no other machine is",
        "/etc/hosts of all machines",
    ),
    (
        "no token",
        {"environment": {"RAY_AUTH_MODE": "token"}},
        "token",
        "RAY_AUTH_MODE is token, but there is no token",
        "copy the cluster's token to ~/.ray/auth_token",
    ),
    (
        "missing weights",
        {"missing": ("/weights/b16.safetensors",)},
        "files",
        "/weights/b16.safetensors is not there",
        "copy it to the same path there",
    ),
]


@pytest.mark.parametrize(("changes", "check", "fault", "remedy"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED])
def test_a_planted_fault_is_named_with_its_remedy(changes: dict[str, Any], check: str, fault: str, remedy: str) -> None:
    (found,) = examine(replace(NODE, **changes), DEMANDS)
    assert (found.check, found.where) == (check, "node gpu-1")
    assert fault in found.fault
    assert remedy in found.remedy
    assert len(str(found).splitlines()) == 1


@pytest.mark.parametrize(
    ("past", "caught"),
    [
        ("", "10.0.0.9,mlflow"),
        ("10.0.0.9", "mlflow"),
        ("10.0.0.0/8,mlflow", None),
        ("0.0.8,.mlflow,mlflow.example.org", "10.0.0.9,mlflow"),
        ("*", None),
    ],
)
def test_a_proxy_before_hosts_of_ones_own_network(past: str, caught: str | None) -> None:
    """A public address may well lie behind one, and loopback a sweep itself keeps out of it."""
    driver = replace(DRIVER, environment={"HTTPS_PROXY": "http://proxy:3128", "no_proxy": past})
    hosts = ("10.0.0.9", "mlflow", "mlflow.example.org", "localhost", "127.0.0.1")
    found = list(examine(driver, replace(DEMANDS, driver=driver, hosts=hosts)))
    expected = caught and Finding(
        "proxy",
        "this machine",
        f"HTTPS_PROXY is set, so {caught} would be reached through a proxy",
        f"add {caught} to no_proxy",
    )
    assert found == ([expected] if expected else [])


def test_names_do_not_matter_on_one_machine() -> None:
    assert list(examine(replace(NODE, address="127.0.1.1"), replace(DEMANDS, num_nodes=1))) == []


def test_every_check_has_a_planted_fault() -> None:
    assert {check for _, _, check, _, _ in PLANTED} | {"proxy"} == set(CHECKS)
