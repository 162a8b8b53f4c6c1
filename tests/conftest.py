"""Tests run on one thread each, and see nothing of the caller's own storage, tracking or cluster."""

import os

# before torch is imported: the other cores are for what runs beside
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for name in ("TIME_RAY_STORAGE", "TIME_RAY_DEBUG", "TIME_RAY_GIT_COMMIT", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(name, None)

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def time_ray(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """The command line, in this process."""

    def call(*words: str | Path) -> Done:
        from time_ray.cli import main

        monkeypatch.setattr(sys, "argv", ["time-ray", *map(str, words)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        else:
            status = 0
        return Done(status, *capsys.readouterr())

    return call
