"""Profiles: traces of a trial's first training and first evaluation, a few batches of each, as files on the storage."""

import gzip
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from time_ray.core.errors import StoreError
from time_ray.store.files import Files

WARM_UP = 3  # batches: the first ones make what later ones find ready
TRACED = 3  # batches: some megabytes, which a browser opens


class Profiler:
    """Of one trial.

    Args:
        files: The storage.
        folder: Where traces are kept on it.
        trial: Its name, a part of theirs.
        say: Hears why a trace could not be kept, which stops no trial.

    """

    def __init__(self, files: Files, folder: str, trial: str, say: Callable[[str], None]) -> None:
        self._files = files
        self._folder = folder
        self._trial = trial
        self._say = say
        self._traced: set[str] = set()
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it tells of every start and stop, amid the progress

    @contextmanager
    def traced(self, stage: str, model: str) -> Iterator[Callable[[], None]]:
        """Of the first block of each stage a trace is kept; whoever runs in it calls this before every batch.

        It shows the batches after the warm-up; all of them where there are fewer.
        """
        if stage in self._traced:
            yield lambda: None
            return
        self._traced.add(stage)
        with tempfile.TemporaryDirectory() as folder:
            trace = _Trace(Path(folder) / "trace.json")
            try:
                yield trace.next_batch
            finally:
                trace.end()
            if trace.path.exists():
                self._keep(trace.path, re.sub(r"[^\w.-]+", "-", f"{stage}-{model}-{self._trial}"))

    def _keep(self, trace: Path, name: str) -> None:
        try:
            self._files.write(gzip.compress(trace.read_bytes()), self._folder, f"{name}-{uuid.uuid4().hex[:8]}.json.gz")
        except StoreError as error:
            self._say(f"profile: {error}")


class _Trace:
    """A profile that begins with the first batch, and anew after the warm-up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches = 0
        self._profile: profile | None = None

    def next_batch(self) -> None:
        """Another batch begins."""
        if self._batches == WARM_UP + TRACED:
            self.end()
        elif self._batches in (0, WARM_UP):
            self._begin()
        self._batches += 1

    def end(self) -> None:
        """The file holds what was seen, if anything was."""
        if self._profile is not None:
            self._profile.stop()
            self._profile.export_chrome_trace(str(self.path))
            self._profile = None

    def _begin(self) -> None:
        if self._profile is not None:
            self._profile.stop()
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
        self._profile.start()
