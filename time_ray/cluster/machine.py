"""What a machine is like: packages, GPUs, limits, names. Gathered with the standard library alone.

These functions are sent to every node of a cluster by value: a node may lack time_ray, or have another one.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from time_ray import python_child

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "ray",
    "pyarrow",
    "safetensors",
    "numpy",
    "pillow",
    "pydantic",
    "pyyaml",
)
PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
ENVIRONMENT = (*PROXIES, "no_proxy", "NO_PROXY", "RAY_AUTH_MODE")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 only its size is asked for
IMPORT_SECONDS = 60
_IMPORT = """
import json, sys
found = dict.fromkeys(("error", "cuda", "nccl"), None) | {"gpus": 0}
module = "torch"
try:
    import torch
    found["cuda"] = torch.version.cuda
    found["gpus"] = torch.cuda.device_count()
    found["nccl"] = bool(torch.distributed.is_available() and torch.distributed.is_nccl_available())
    module = "torchvision"
    import torchvision
except Exception as error:
    found["error"] = f"{module}: {type(error).__name__}: " + " ".join(str(error).split())[:200]
print(json.dumps(found))
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, as it said of itself."""

    name: str
    python: str
    packages: Mapping[str, str | None]  # by name; None: not installed
    torch_for: str | None  # which torch the installed torchvision asks for, as in `torch==2.8.0`
    source: str | None  # digest of time_ray's own files; None: they are not there
    torch: Mapping[str, Any] | None  # how its import went, CUDA, GPUs and NCCL; None: not tried
    nvidia: int  # GPUs that the system has
    shared_memory: int | None  # bytes; None: there is none
    free: Mapping[str, int]  # bytes, by folder
    open_files: tuple[int, int]  # the limit, and how far a process may raise it
    address: str | None  # what its own name resolves to; None: nothing
    missing: tuple[str, ...]  # paths that it was asked for and does not have
    environment: Mapping[str, str]
    has_token: bool  # for a Ray cluster that asks for one
    is_here: bool = True  # this one, not a node
    skew: float = 0.0  # seconds that its clock is ahead of ours, beyond what the question took
    storage: Mapping[str, str] = field(default_factory=dict)  # what failed there: read, write or list, and why


def gather(folders: Sequence[str], paths: Sequence[str], *, with_torch: bool) -> dict[str, Any]:
    """The fields of a Machine, as plain values.

    Args:
        folders: Where room is needed.
        paths: Files and folders that must be there.
        with_torch: Whether torch and torchvision are imported, which takes seconds.

    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "name": socket.gethostname(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch_for": _torch_for(),
        "source": _source_digest(),
        "torch": _import_torch() if with_torch else None,
        "nvidia": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "shared_memory": _total(SHARED_MEMORY),
        "free": {folder: shutil.disk_usage(_existing(folder)).free for folder in folders},
        "open_files": tuple(10**9 if limit == resource.RLIM_INFINITY else limit for limit in files),
        "address": _own_address(),
        "missing": tuple(path for path in paths if not Path(path).exists()),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)},
        "has_token": _has_token(),
    }


def now() -> float:
    """Its clock, in seconds since the epoch."""
    return time.time()


def try_storage(uri: str, name: str, token: bytes) -> dict[str, str]:
    """What cannot be done on a storage, and why: to read what the driver wrote, to write, to list.

    Args:
        uri: The storage's root.
        name: The file that the driver wrote there.
        token: What is in it.

    """
    try:
        from time_ray.core.errors import StoreError
        from time_ray.store.files import PROBE, Files
    except ImportError as error:
        return {"read": f"time_ray cannot be imported: {error}"}
    failed: dict[str, str] = {}
    files = Files(uri)
    try:
        if files.find(name) != token:
            return {"read": "not there"}  # and nothing is written to what may be another storage
    except StoreError as error:
        return {"read": str(error.__cause__)}
    own = f"{PROBE}{socket.gethostname()}-{os.getpid()}"
    try:
        files.write(token, own)
        if own not in [info.base_name for info in files.list()]:
            failed["list"] = "a new file is not listed"
        files.delete(own)
    except StoreError as error:
        failed["write"] = str(error.__cause__)
    return failed


def _version(name: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _torch_for() -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("torchvision") or ():
            if re.match(r"torch\b", line):
                return line
    return None


def _source_digest() -> str | None:
    spec = importlib.util.find_spec("time_ray")
    if spec is None or not spec.submodule_search_locations:
        return None
    digest = hashlib.sha256()
    root = Path(next(iter(spec.submodule_search_locations)))
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _import_torch() -> dict[str, Any]:
    """Tried in a process of its own: a wrong pair may end it."""
    all_gpus = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES") or None}  # empty: Ray gave us none
    child = python_child.start(["-c", _IMPORT], variables=all_gpus, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        try:
            out, errors = child.communicate(timeout=IMPORT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return {"error": f"torch: not imported within {IMPORT_SECONDS} s", "cuda": None, "nccl": None, "gpus": 0}
    try:
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        said = errors.decode(errors="replace").strip().splitlines() or [f"ended with status {child.returncode}"]
        return {"error": f"torch: {said[-1][:200]}", "cuda": None, "nccl": None, "gpus": 0}
    return found


def _total(path: str) -> int | None:
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return None


def _existing(folder: str) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = Path(folder).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _own_address() -> str | None:
    try:
        return str(socket.getaddrinfo(socket.gethostname(), None)[0][4][0])
    except OSError:
        return None


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()
