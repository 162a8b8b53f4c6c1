"""The table of checks: what may be wrong with a machine that a sweep is to run on, and what mends it.

Each check is a pure function of what a machine said of itself, and of what it is to fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TypeAlias

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from time_ray.cluster.machine import PROXIES, SHARED_MEMORY, Machine
from time_ray.core.finding import Finding
from time_ray.core.loopback import HOSTS as LOOPBACK
from time_ray.core.quantities import size

LEAST_PYTHON = (3, 11)
LEAST_SHARED_MEMORY = 1 << 30  # Ray keeps its objects there, and falls back to the disk where there is less
LEAST_FREE = 2 << 30
LEAST_OPEN_FILES = 4096  # Ray's own advice
MOST_SKEW_SECONDS = 5.0

Faults: TypeAlias = Iterator[tuple[str, str]]  # what is wrong, and what to do


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What every machine of a sweep is to fit."""

    driver: Machine
    requires: Sequence[str] = ()  # what time_ray depends on, as in `torch>=2.8`
    num_nodes: int = 1
    hosts: Sequence[str] = ()  # that the driver must reach without a proxy
    storage: str = ""  # as people may read it


def python_version(machine: Machine, demands: Demands) -> Faults:
    """Python is one that time_ray runs on, and on nodes the driver's."""
    if tuple(int(part) for part in machine.python.split(".")[:2]) < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        yield f"Python {machine.python} is too old", f"use Python {least} or newer"
    elif machine.python.split(".")[:2] != demands.driver.python.split(".")[:2]:
        remedy = "give all machines the same Python"
        yield f"Python {machine.python}, but the driver has {demands.driver.python}", remedy


def packages(machine: Machine, demands: Demands) -> Faults:
    """Every package is there, in a version that time_ray takes; on nodes in the driver's."""
    wanted = {r.name.lower().replace("-", "_"): r for r in map(Requirement, demands.requires) if r.marker is None}
    for name, found in machine.packages.items():
        theirs = demands.driver.packages.get(name)
        requirement = wanted.get(name)
        exact = f"pip install {name}=={theirs}" if theirs else f"pip install '{requirement or name}'"
        if found is None:
            yield f"{name} is not installed", f"{exact} there"
        elif requirement is not None and not requirement.specifier.contains(found, prereleases=True):
            yield f"{name} {found} is installed, time_ray needs {requirement}", f"pip install '{requirement}' there"
        elif theirs is not None and _public(found) != _public(theirs):
            yield f"{name} {found}, but the driver has {theirs}", f"{exact} there"


def source(machine: Machine, demands: Demands) -> Faults:
    """time_ray on a node is the driver's, to the last line: another one may give other results."""
    if machine.source is None:
        yield (
            "time_ray is not installed",
            "install the driver's commit there, or submit it with the job",
        )
    elif machine.source != demands.driver.source:
        yield "its time_ray has other code than the driver's", "install the same commit on all machines"


def torch_pair(machine: Machine, demands: Demands) -> Faults:
    """Torch and torchvision fit each other, and can be imported."""
    del demands
    torch, vision = machine.packages.get("torch"), machine.packages.get("torchvision")
    remedy = "install a pair from one index, as in pip install --force-reinstall torch torchvision"
    if torch and vision and machine.torch_for and not _takes(machine.torch_for, torch):
        yield f"torchvision {vision} needs {_shown(machine.torch_for)}, but torch {torch} is installed", remedy
    elif machine.torch and machine.torch["error"] and torch and vision:
        yield f"torch {torch} with torchvision {vision} cannot be imported ({machine.torch['error']})", remedy


def gpus(machine: Machine, demands: Demands) -> Faults:
    """Torch sees the machine's GPUs, and can let them talk to each other."""
    del demands
    torch = machine.torch
    if torch is None or torch["error"]:
        return
    if machine.nvidia and not torch["gpus"]:
        if torch["cuda"] is None:
            yield f"{machine.nvidia} GPUs, but torch is built for the CPU", "install a torch built for CUDA"
        else:
            remedy = f"see that nvidia-smi works, and that its driver is new enough for CUDA {torch['cuda']}"
            yield f"{machine.nvidia} GPUs, but torch sees none", remedy
    elif torch["gpus"] and not torch["nccl"]:
        yield "torch has GPUs and no NCCL, so workers cannot share a model", "install a torch built with NCCL"


def clock(machine: Machine, demands: Demands) -> Faults:
    """Clocks agree: object storages refuse requests from another time, and logs cannot be read in order."""
    del demands
    if abs(machine.skew) > MOST_SKEW_SECONDS:
        way = "ahead of" if machine.skew > 0 else "behind"
        yield (
            f"its clock is {abs(machine.skew):.0f} s {way} the driver's",
            "let NTP set it, as in timedatectl set-ntp true",
        )


def storage(machine: Machine, demands: Demands) -> Faults:
    """The storage is one and the same everywhere, and can be written and listed."""
    failed = machine.storage
    where = f"the storage {demands.storage}"
    if failed.get("read") == "not there":
        remedy = "give all machines one storage: a shared folder at the same path, or s3://..."
        yield f"{where} is not the driver's, but a folder of that machine", remedy
    elif "read" in failed:
        yield f"{where} cannot be read ({failed['read']})", "see that it answers there, and to credentials and rights"
    if "write" in failed:
        yield f"{where} cannot be written ({failed['write']})", _write_remedy(failed["write"])
    if "list" in failed:
        yield f"{where} cannot be listed ({failed['list']})", "see to the right to list its bucket or folder"


def _write_remedy(why: str) -> str:
    if "Read-only" in why or "Errno 30" in why:
        return "mount it for writing, or set storage: or TIME_RAY_STORAGE"
    if "No space" in why or "quota" in why:
        return "free space there, or set storage: or TIME_RAY_STORAGE"
    return "see to the rights there, or set storage: or TIME_RAY_STORAGE"


def free_space(machine: Machine, demands: Demands) -> Faults:
    """There is room on the disks."""
    del demands
    for folder, free in machine.free.items():
        if free < LEAST_FREE:
            remedy = "free some, or use another disk (TIME_RAY_STORAGE, TIME_RAY_CACHE, RAY_TMPDIR)"
            yield f"only {size(free)} are free at {folder}", remedy


def shared_memory(machine: Machine, demands: Demands) -> Faults:
    """Ray and torch have shared memory."""
    del demands
    remedy = "start its container with --shm-size=8g, or mount a larger one"
    if machine.shared_memory is None:
        yield f"there is no {SHARED_MEMORY}", remedy
    elif machine.shared_memory < LEAST_SHARED_MEMORY:
        yield f"{SHARED_MEMORY} has only {size(machine.shared_memory)}", remedy


def open_files(machine: Machine, demands: Demands) -> Faults:
    """Enough files may be open. Here Ray raises the limit as far as it may; a node keeps that of `ray start`."""
    del demands
    soft, hard = machine.open_files
    limit = hard if machine.is_here else soft
    if limit < LEAST_OPEN_FILES:
        yield f"only {limit} files may be open at once", "ulimit -n 65536 before Ray is started there"


def host_name(machine: Machine, demands: Demands) -> Faults:
    """Where workers of several machines meet, each machine's name leads to it and not to itself."""
    if demands.num_nodes < 2 or machine.is_here:
        return
    remedy = "give its name and address in the DNS, or in /etc/hosts of all machines"
    if machine.address is None:
        yield "its own host name does not resolve", remedy
    elif machine.address == "::1" or machine.address.startswith("127."):
        yield f"its own host name resolves to {machine.address}, where no other machine is", remedy


def proxy(machine: Machine, demands: Demands) -> Faults:
    """No proxy stands between the driver and what it speaks with."""
    environment = machine.environment
    named = next((name for name in PROXIES if environment.get(name)), None)
    if named is None or not machine.is_here:
        return
    past = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    caught = [h for h in demands.hosts if _is_near(h) and not _is_among(h, past)]
    if caught:
        hosts = ",".join(caught)
        yield f"{named} is set, so {hosts} would be reached through a proxy", f"add {hosts} to no_proxy"


def token(machine: Machine, demands: Demands) -> Faults:
    """Where Ray asks for a token there is one."""
    del demands
    if machine.environment.get("RAY_AUTH_MODE", "").lower() == "token" and not machine.has_token:
        remedy = "copy the cluster's token to ~/.ray/auth_token, or unset RAY_AUTH_MODE"
        yield "RAY_AUTH_MODE is token, but there is no token", remedy


def files(machine: Machine, demands: Demands) -> Faults:
    """Weights and datasets that an experiment names by path lie on the machine."""
    del demands
    for path in machine.missing:
        yield f"{path} is not there", "copy it to the same path there, or use a shared folder"


CHECKS: Mapping[str, Callable[[Machine, Demands], Faults]] = {
    "python": python_version,
    "packages": packages,
    "time_ray": source,
    "torch": torch_pair,
    "gpus": gpus,
    "clock": clock,
    "storage": storage,
    "free space": free_space,
    "shared memory": shared_memory,
    "open files": open_files,
    "host name": host_name,
    "proxy": proxy,
    "token": token,
    "files": files,
}


def examine(machine: Machine, demands: Demands) -> Iterator[Finding]:
    """All that is wrong with a machine."""
    for name, check in CHECKS.items():
        for fault, remedy in check(machine, demands):
            yield Finding(name, machine.name, fault, remedy)


def _public(version: str) -> str:
    """Without what names a build, as in `+cu128`: a head without GPUs has another."""
    return version.partition("+")[0]


def _is_near(host: str) -> bool:
    """Whether it is a host of one's own network, which no proxy leads to. A sweep itself goes past them on loopback."""
    if host in LOOPBACK:
        return False
    with suppress(ValueError):
        return ip_address(host).is_private
    return "." not in host or host.endswith((".local", ".internal", ".lan", ".svc"))


def _is_among(host: str, past: str) -> bool:
    """Whether no_proxy names the host: by itself, by a domain that it is in, or by its network."""
    for name in (part.strip() for part in past.split(",") if part.strip()):
        if name in ("*", host) or host.endswith(f".{name.lstrip('.')}"):
            return True
        with suppress(ValueError):
            if ip_address(host) in ip_network(name):
                return True
    return False


def _shown(requirement: str) -> str:
    parsed = Requirement(requirement)
    return f"{parsed.name}{parsed.specifier}"


def _takes(requirement: str, version: str) -> bool:
    try:
        return Requirement(requirement).specifier.contains(Version(version), prereleases=True)
    except (InvalidRequirement, InvalidVersion):
        return True  # a build of one's own: its import tells
