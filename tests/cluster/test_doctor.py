"""`time-ray doctor` on this machine: what is planted in it is found by the command, and nothing where it is healthy."""

import errno
import json
import os
import platform
import resource
import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from time_ray import api
from time_ray.cluster import doctor, machine
from time_ray.core.errors import StoreError, UserError
from time_ray.core.finding import Finding
from time_ray.events import Event, Note
from time_ray.store import files as files_module
from time_ray.store.files import Files

Make = Callable[..., Path]
Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 as shutil has it
GB = 1 << 30
IMPORTED = {"error": None, "cuda": None, "gpus": 0, "nccl": True}


TORCH = """
class version: cuda = "12.8"
class cuda: device_count = lambda: 2
class distributed: is_available = is_nccl_available = lambda: True
"""


@pytest.fixture(autouse=True)
def _healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever machine this is: it has room, files and memory, and torch is not imported again in each test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "new" / "runs"))
    for name in (*machine.ENVIRONMENT, "RAY_TMPDIR", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * GB, 0, 100 * GB))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 65536))
    monkeypatch.setattr(machine, "_import_torch", lambda: IMPORTED)


def distribution(folder: Path, name: str, version: str, *lines: str) -> None:
    """What pip leaves of an installed package, before all others on the path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(head) + "\n", encoding="utf-8")


def an_old_python(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "python_version", lambda: "3.10.12")


def an_old_package(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path / "site", "safetensors", "0.1.0")
    patch.syspath_prepend(tmp_path / "site")


def a_torchvision_for_another_torch(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path / "site", "torchvision", "0.99.0", "Requires-Dist: numpy", "Requires-Dist: torch (==2.7.1)")
    patch.syspath_prepend(tmp_path / "site")


def gpus_and_a_torch_for_cpus(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    glob = Path.glob
    patch.setattr(Path, "glob", lambda path, what: ["/dev/nvidia0"] if "nvidia" in what else glob(path, what))


def a_storage_that_is_read_only(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise StoreError("no") from OSError(errno.EROFS, os.strerror(errno.EROFS))

    patch.setattr(Files, "write", write)


def a_storage_below_a_file(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    patch.setenv("TIME_RAY_STORAGE", str(tmp_path / "file" / "runs"))


def a_full_disk(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    def usage(path: Path) -> Usage:
        return Usage(100 * GB, 0, GB if path.is_relative_to(tmp_path) else 9 * GB)

    patch.setattr(shutil, "disk_usage", lambda path: usage(Path(path)))


def a_small_shared_memory(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shutil, "disk_usage", lambda path: Usage(64 << 20 if "shm" in str(path) else 9 * GB, 0, 9 * GB))


def few_open_files(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(resource, "getrlimit", lambda _: (256, 1024))


def no_token(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("HOME", str(tmp_path))


def a_long_temporary_folder(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    (tmp_path / ("x" * 80)).mkdir()
    patch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 80)))


def mlflow_behind_a_proxy(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("http_proxy", "http://127.0.0.1:1")
    patch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")


def an_mlflow_that_is_down(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")


PLANTED = [
    (an_old_python, "Python 3.10.12 is too old", "use Python 3.11 or newer"),
    (an_old_package, "safetensors 0.1.0 is installed, time_ray needs safetensors>=0.5", "pip install 'safetensors>="),
    (a_torchvision_for_another_torch, "torchvision 0.99.0 needs torch==2.7.1, but torch ", "from one index"),
    (gpus_and_a_torch_for_cpus, "1 GPUs, but torch is built for the CPU", "install a torch built for CUDA"),
    (a_storage_that_is_read_only, "cannot be written ([Errno 30] Read-only file system)", "mount it for writing"),
    (a_storage_below_a_file, "cannot be written (", "set storage: or TIME_RAY_STORAGE"),
    (a_full_disk, "only 1.1 GB are free at ", "free some"),
    (a_small_shared_memory, " has only 67.1 MB", "--shm-size"),
    (few_open_files, "only 1024 files may be open at once", "ulimit -n 65536"),
    (no_token, "RAY_AUTH_MODE is token, but there is no token", "copy the cluster's token"),
    (a_long_temporary_folder, "its path is too long for Ray's sockets", "set RAY_TMPDIR to a folder"),
    (mlflow_behind_a_proxy, "http_proxy is set, so mlflow would be reached through a proxy", "add mlflow to no_proxy"),
    (an_mlflow_that_is_down, "nothing answers there (connection refused)", "start the server"),
]


@pytest.mark.parametrize(("plant", "fault", "remedy"), PLANTED, ids=[row[0].__name__ for row in PLANTED])
def test_what_is_planted_is_found(
    time_ray: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Path, pytest.MonkeyPatch], None],
    fault: str,
    remedy: str,
) -> None:
    plant(tmp_path, monkeypatch)
    done = time_ray("doctor", "-f", "json")
    assert done.status == 1
    rows = json.loads(done.out)
    assert [row for row in rows if fault in row["fault"] and remedy in row["remedy"]], rows
    assert len(rows) == (2 if plant is mlflow_behind_a_proxy else 1)
    assert done.err.endswith(f"{len(rows)} found\n")


def test_a_healthy_machine_has_nothing_and_nothing_is_left(
    time_ray: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    assert time_ray("doctor")[:2] == (0, "")
    assert time.monotonic() - started < 5
    assert list(tmp_path.iterdir()) == []
    assert time_ray("doctor", "-f", "json")[:2] == (0, "[]\n")


def test_a_line_a_fault(time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    done = time_ray("doctor")
    assert done.status == 1
    assert done.out == (
        "http://127.0.0.1:1: nothing answers there (connection refused); start the server, or correct its port\n"
    )


@pytest.mark.nightly
def test_torch_is_imported_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is installed works; a torchvision whose operators another torch has, or a torch that crashes, does not."""
    monkeypatch.undo()
    assert machine._import_torch()["error"] is None
    (tmp_path / "torch.py").write_text(TORCH, encoding="utf-8")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    error = "torchvision: RuntimeError: operator torchvision::nms does not exist"
    assert machine._import_torch() == {"error": error, "cuda": "12.8", "gpus": 2, "nccl": True}
    (tmp_path / "torch.py").write_text("import os; os.abort()", encoding="utf-8")
    assert machine._import_torch()["error"] == "torch: ended with status -6"


def test_the_files_of_an_experiment(new_experiment: Make, tmp_path: Path) -> None:
    """What it names by path and every node opens; what lies on the storage does not count."""
    from time_ray.clip.mini import MODELS

    weights = tmp_path / "weights.safetensors"
    weights.symlink_to(MODELS["mini-tiny"].weights)
    path = new_experiment(tmp_path, model={"name": "mini-tiny", "weights": str(weights)})
    opened = api.open_experiment(path)
    assert doctor._paths(opened.files, opened.study) == [str(weights)]
    assert api.doctor(path) == []


def test_a_bucket_that_is_not_there_and_no_server(
    s3: S3Server, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "PAUSES", ())
    monkeypatch.setenv("TIME_RAY_STORAGE", s3.uri("nowhere/runs").replace("allow_bucket_creation=true&", ""))
    rows = {row["check"]: row for row in json.loads(time_ray("doctor", "-f", "json").out)}
    assert set(rows) == {"storage", "MLflow"}
    assert "the storage s3://nowhere/runs cannot be written (" in rows["storage"]["fault"]
    assert rows["MLflow"]["remedy"] == "set MLFLOW_TRACKING_URI to an MLflow server"
    Files(s3.uri("there")).filesystem.create_dir("there")
    monkeypatch.setenv("TIME_RAY_STORAGE", s3.uri("there/runs"))
    assert [row["check"] for row in json.loads(time_ray("doctor", "-f", "json").out)] == ["MLflow"]
    assert Files(s3.uri("there/runs")).list() == []


@pytest.mark.parametrize(
    ("address", "fault"),
    [("http://head:8265", "'http://head:8265' is no address"), ("127.0.0.1:1", "nothing answers at 127.0.0.1:1")],
)
def test_an_address_that_is_no_cluster(time_ray: Callable[..., Any], address: str, fault: str) -> None:
    done = time_ray("doctor", "--address", address, "-f", "json")
    assert done.status == 1
    (row,) = json.loads(done.out)
    assert fault in row["fault"]
    assert row["remedy"]


def test_a_server_that_refuses_is_told_at_the_start_and_stops_no_sweep(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from time_ray.tracking import mlflow_sync

    monkeypatch.setattr(mlflow_sync, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pa55word@127.0.0.1:1")
    events: list[Event] = []
    outcome = api.sweep(
        api.open_experiment(new_experiment(tmp_path, init="ft", deploy="ft", technique="average")), events.append
    )
    assert outcome.exit_code == 0
    assert events[1] == Note(
        "doctor: MLflow at http://127.0.0.1:1: nothing answers there (connection refused); "
        "start the server, or correct its port; the sweep goes on without it"
    )


def test_a_sweep_is_not_begun_where_a_node_has_another_storage(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else a node lacks is told, and may do no harm."""
    opened = api.open_experiment(new_experiment(tmp_path, run={"workers": 1}))
    with doctor._token(opened.files) as (_, _, failed):
        here = doctor._here(opened.files, opened.study, failed)
    node = {**vars(here), "name": "node b", "is_here": False, "open_files": (65536, 65536)}
    nodes = (machine.Machine(**{**node, "skew": 60.0}), machine.Machine(**{**node, "storage": {"read": "not there"}}))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(doctor, "_ask", lambda _: doctor.Answers(nodes[:1], 1))
    notes: list[Note] = []
    doctor.brief(opened.study, opened.files, notes.append)
    assert notes == [Note("doctor: node b: its clock is 60 s ahead of the driver's; " + CLOCK_REMEDY)]
    monkeypatch.setattr(doctor, "_ask", lambda _: doctor.Answers(nodes, 2))
    with pytest.raises(UserError, match=r"^node b: the storage .* is not the driver's, but a folder of that machine; "):
        doctor.brief(opened.study, opened.files, notes.append)


CLOCK_REMEDY = "let NTP set it, as in timedatectl set-ntp true"


def test_why_a_cluster_cannot_be_joined() -> None:
    """Ray's own words, as they were seen."""
    from time_ray.cluster.nodes import unjoined

    refused = (
        "gcs_client.cc:210: Failed to get cluster ID from GCS server: Unauthenticated: RPC error: InvalidAuthToken: "
        "Authentication token is missing or incorrect\nConnectionError: Failed to connect to Ray cluster at h:6379"
    )
    assert unjoined(refused)[0] == "asks for a token that this machine does not have, or has another of"
    versions = (
        "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.9\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n"
    )
    fault, remedy = unjoined(versions)
    assert fault == "runs Ray 2.59.0 on Python 3.11.9, this machine Ray 2.60.0 on Python 3.11.2"
    assert "ray[default,tune,train]==2.60.0" in remedy
    assert unjoined("first\nlast words\n")[0] == "cannot be joined (last words)"


def test_findings_are_lines() -> None:
    assert str(Finding("clock", "node b", "late", "wait")) == "node b: late; wait"
