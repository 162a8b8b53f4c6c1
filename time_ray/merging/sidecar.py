"""What is worth remembering beside a model file: its digest, and its histograms of |expert − base|.

`E.safetensors.merging` belongs to `E.safetensors` while that has the same size and time; its histograms belong to the
base with the digest that it names. It may be deleted at any time.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from time_ray.merging.models import FileModel
from time_ray.merging.progress import Meter

BLOCK = 1 << 22
VERSION = "1"


def digest(model: FileModel, meter: Meter) -> str:
    """The SHA-256 of a file, as `sha256sum` prints it."""
    sha, place = hashlib.sha256(), 0
    while block := os.pread(model.file, BLOCK, place):
        sha.update(block)
        place += len(block)
        meter.tick(len(block))
    return sha.hexdigest()


@dataclass
class Sidecar:
    """What is known of one model file."""

    model: FileModel
    sha256: str = ""
    base_sha256: str = ""
    histograms: dict[str, Tensor] = field(default_factory=dict)
    """By tower."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.model.path.with_name(self.model.path.name + ".merging")

    def stamp(self) -> dict[str, str]:
        """What must not change of the file for this to stay true."""
        status = os.fstat(self.model.file)
        return {"version": VERSION, "size": str(status.st_size), "mtime_ns": str(status.st_mtime_ns)}

    def load(self) -> "Sidecar":
        """The same with what was remembered, as far as it still holds."""
        with contextlib.suppress(OSError, SafetensorError), safe_open(self.path, "pt") as file:
            known = file.metadata() or {}
            if self.stamp().items() <= known.items():
                self.sha256, self.base_sha256 = known["sha256"], known["base_sha256"]
                self.histograms = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        return self

    def save(self) -> None:
        """It is remembered, where the folder can be written."""
        metadata = {**self.stamp(), "sha256": self.sha256, "base_sha256": self.base_sha256}
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError, SafetensorError):
            save_file(self.histograms, part, metadata)
            part.replace(self.path)
