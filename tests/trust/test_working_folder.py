"""A sweep in the folder of a stranger runs none of its code: not in this process, nor in any that Ray starts."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from neighbour import as_nobody, open_folder
from ray.core.generated.common_pb2 import JobConfig

from time_ray import python_child, version
from time_ray.cluster import ray_cluster
from time_ray.data.importers.worker_processes import run_jobs
from time_ray.private_files import current_umask

PLANTS = ("sitecustomize", "usercustomize", "ftfy", "multiprocessing", "mlflow", "torch", "colorama", "psutil")
PACKAGE = str(Path(version.__file__).parents[1])
SECRET = "41.0625"  # noqa: S105 in an address; SQLite takes it as a timeout
SMALL = {"init": ["zs"], "deploy": ["ft"], "technique": ["halfway"], "stream": {"tasks": 1}}
RULES = """
from time_ray.extend import technique

@technique
def halfway(base, experts):
    'half of the way to the first'
    return base + 0.5 * (experts[0] - base)
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: whatever of it runs leaves a file `ran-NAME`."""
    folder = tmp_path / "cloned"
    folder.mkdir()
    for name in PLANTS:
        code = f"import pathlib; pathlib.Path({str(folder)!r}, 'ran-{name}').touch(); raise SystemExit('{name} ran')\n"
        (folder / f"{name}.py").write_text(code)
    for command in (["init", "-q"], ["config", "core.fsmonitor", f"touch {folder}/ran-fsmonitor; false"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    monkeypatch.chdir(folder)
    return folder


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ran-*"))


@pytest.mark.ray
@pytest.mark.nightly
def test_a_sweep_on_ray_runs_nothing_of_its_working_folder(
    hostile: Path, new_experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Yet it runs the plugin that the experiment names. Meanwhile another user can read nothing of what Ray writes."""
    (hostile / "mine.py").write_text(RULES)
    path = new_experiment(tmp_path, **SMALL, plugins=["cloned/mine.py"], run={"workers": 1, "trials": 1})
    with open_folder() as folder:
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db?timeout={SECRET}")
        words = [sys.executable, "-m", "time_ray", "sweep", str(path)]
        with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": PACKAGE}, stderr=subprocess.PIPE) as child:
            while child.poll() is None and not list(folder.glob("tr-*/*/session_latest/logs/worker-*.out")):
                time.sleep(0.1)
            seen = as_nobody("find", str(folder), "-mindepth", "1").stdout.splitlines()
            (made,) = folder.glob("tr-*/errors.txt")
            mode = made.parent.stat().st_mode & 0o777
            arguments = b"".join(process.read_bytes() for process in Path("/proc").glob("[0-9]*/cmdline"))
            logs = b"".join(file.read_bytes() for file in made.parent.rglob("*.*") if file.is_file())
            _, errors = child.communicate()
    assert child.returncode == 0, errors.decode()
    assert ran(hostile) == []
    assert mode == 0o700
    assert b"raylet" in arguments
    assert SECRET.encode() not in arguments + logs
    assert {Path(line).suffix for line in seen} <= {"", ".lock"}
    assert {len(Path(line).relative_to(folder).parts) for line in seen} == {1}
    scores = [file for file in (tmp_path / "runs" / "scores").rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in scores} == {0o666 & ~current_umask()}


def test_ray_is_not_told_of_the_working_folder() -> None:
    config = ray_cluster._without_working_folder()
    config._py_driver_sys_path.append("/cloned")  # as ray.init does
    told = JobConfig.FromString(config._serialize())
    assert list(told.py_driver_sys_path) == []


def test_git_is_not_asked_about_the_working_folder(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(version.COMMIT_VARIABLE, raising=False)
    monkeypatch.setenv("GIT_DIR", str(hostile / ".git"))
    version.git_commit()
    assert ran(hostile) == []


def test_git_runs_no_programs_of_a_checkout(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(version.COMMIT_VARIABLE, raising=False)
    monkeypatch.setattr(version, "_CHECKOUT", hostile)
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.fsmonitor="]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "one"], cwd=hostile, check=True)
    assert len(version.git_commit()) == 40
    assert ran(hostile) == []


def test_a_child_finds_no_module_in_the_working_folder(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep)  # as by `export PYTHONPATH=$PYTHONPATH:`
    code = "import subprocess, sys; import ftfy; subprocess.run([sys.executable, '-c', 'import ftfy'], check=True)"
    with python_child.start(["-c", code]) as child:
        assert child.wait() == 0
    assert ran(hostile) == []


def test_workers_of_imports_find_no_module_in_the_working_folder(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time_ray.data.importers.worker_processes.ALONE_SECONDS", 0.0)
    assert dict(run_jobs(os.path.basename, ["a/b", "a/c"], 2)) == {0: "b", 1: "c"}
    assert ran(hostile) == []
    assert os.environ.get("PYTHONSAFEPATH") is None


def test_what_a_child_writes_is_for_its_owner_alone(tmp_path: Path) -> None:
    with python_child.start(["-c", f"open({str(tmp_path / 'file')!r}, 'w')"]) as child:
        assert child.wait() == 0
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
