"""What is worth remembering beside a model file: digest, histograms of |expert − base|, and bounds found in them.

`E.safetensors.merging` belongs to `E.safetensors` while that has the same size and time; its histograms and bounds
belong to the base with the digest that it names. It may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from time_ray.merging.models import OpenFile, StoredModel
from time_ray.merging.pieces import Bounds
from time_ray.merging.progress import ProgressMeter

BLOCK = 1 << 22
VERSION = "2"
REMEMBERED = 16
"""Selections whose bounds are kept."""


def digest(model: StoredModel, meter: ProgressMeter) -> str:
    """The SHA-256 of a model's file, as `sha256sum` prints it; of several, that of their own digests in hexadecimal."""
    found = [file_digest(file, meter) for file in model.files]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def file_digest(file: OpenFile, meter: ProgressMeter) -> str:
    """The SHA-256 of one file."""
    sha, place = hashlib.sha256(), 0
    while block := os.pread(file.handle, BLOCK, place):
        sha.update(block)
        place += len(block)
        meter.tick(len(block))
    return sha.hexdigest()


@dataclass
class Sidecar:
    """What is known of one model file."""

    model: StoredModel
    sha256: str = ""
    base_sha256: str = ""
    histograms: dict[str, Tensor] = field(default_factory=dict)
    """By tower."""
    bounds: dict[str, dict[str, Bounds]] = field(default_factory=dict)
    """By selection and scope."""
    changed: bool = False
    """It knows more than its file."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.model.path.with_name(self.model.path.name + ".merging")

    def stamp(self) -> dict[str, str]:
        """What must not change of the file for this to stay true."""
        found = [file.stat() for file in self.model.files]
        sizes, times = (
            ",".join(map(str, row)) for row in zip(*((s.st_size, s.st_mtime_ns) for s in found), strict=True)
        )
        return {"version": VERSION, "size": sizes, "mtime_ns": times}

    def load(self) -> "Sidecar":
        """The same with what was remembered, as far as it still holds."""
        with contextlib.suppress(OSError, SafetensorError), safe_open(self.path, "pt") as file:
            known = file.metadata() or {}
            if self.stamp().items() <= known.items():
                self.sha256, self.base_sha256 = known["sha256"], known["base_sha256"]
                self.bounds = {label: bounds_of_json(found) for label, found in json.loads(known["bounds"]).items()}
                self.histograms = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        return self

    def bind_to(self, base_sha256: str) -> None:
        """It knows nothing of another base."""
        if self.base_sha256 != base_sha256:
            self.base_sha256, self.histograms, self.bounds = base_sha256, {}, {}

    def add_bounds(self, label: str, bounds: Mapping[str, Bounds]) -> None:
        """The bounds of a selection are known, and those of the last few others."""
        older = list(self.bounds.items())[1 - REMEMBERED :]
        self.bounds = {**dict(older), label: dict(bounds)}
        self.changed = True

    def save(self) -> None:
        """It is remembered, where the folder can be written."""
        if not self.changed:
            return
        bounds = {label: {key: astuple(one) for key, one in found.items()} for label, found in self.bounds.items()}
        metadata = {
            **self.stamp(),
            "sha256": self.sha256,
            "base_sha256": self.base_sha256,
            "bounds": json.dumps(bounds),
        }
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            with contextlib.suppress(OSError, SafetensorError):
                save_file(self.histograms, part, metadata)
                part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)
        self.changed = False


def bounds_of_json(found: Mapping[str, list[Any]]) -> dict[str, Bounds]:
    """The bounds by scope, from their JSON."""
    rows = {key: (low, high, nothing, last) for key, (low, high, nothing, last) in found.items()}
    return {key: Bounds(low, high, nothing, last and tuple(last)) for key, (low, high, nothing, last) in rows.items()}
