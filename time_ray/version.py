"""Where a result comes from: versions, and the commit of the checkout that time_ray runs from."""

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from time_ray import __version__

COMMIT_VARIABLE = "TIME_RAY_GIT_COMMIT"  # set by the driver for its workers, which run elsewhere
_CHECKOUT = Path(__file__).parents[1]
_NO_PROGRAMS = ("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null")
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
    """The commit of the checkout that time_ray itself runs from, `-dirty` if files differ; empty if it is installed.

    The working folder is not asked: its settings would have git run what they name.
    """
    if COMMIT_VARIABLE in os.environ:
        return os.environ[COMMIT_VARIABLE]
    if not (_CHECKOUT / ".git").exists():
        return ""
    head = _git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*command: str) -> str:
    words = ["git", "-C", str(_CHECKOUT), *_NO_PROGRAMS, *command]
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}  # no GIT_DIR, no GIT_CONFIG_COUNT
    try:
        done = subprocess.run(  # noqa: S603
            words, env={**env, "GIT_OPTIONAL_LOCKS": "0"}, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
