"""Where a result comes from: versions, and the commit that the sweep was started at."""

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from time_ray import __version__

COMMIT_VARIABLE = "TIME_RAY_GIT_COMMIT"  # set by the driver for its workers, which run elsewhere
PACKAGES = ("torch", "open_clip_torch", "ray", "mlflow", "pyarrow", "safetensors")


@cache
def provenance() -> dict[str, str]:
    """Package versions and git commit, for recipes and tags."""
    packages = {name: version(name) for name in PACKAGES if _is_installed(name)}
    return {"time_ray": __version__, **packages, "git_commit": git_commit()}  # our code may have come with a Ray job


def _is_installed(name: str) -> bool:
    """Training and merging need neither Ray nor MLflow, and name no version of what is not there."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def git_commit() -> str:
    """The commit of the current directory's repository, `-dirty` if files differ from it; empty outside of one."""
    if COMMIT_VARIABLE in os.environ:
        return os.environ[COMMIT_VARIABLE]
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*command: str) -> str:
    try:
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
