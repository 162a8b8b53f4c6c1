"""Architectures from outside: what open_clip does not know by itself, and is told before it builds one."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from time_ray.core.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """A CLIP architecture as open_clip describes one: `embed_dim`, `vision_cfg`, `text_cfg`, plain JSON values.

    `preprocess_cfg`, in open_clip's words too (`mean`, `std`, `resize_mode`, `interpolation`, `fill_color`), is for
    weights that nothing else says it of.
    """

    name: str
    config: Mapping[str, Any]
    preprocess_cfg: Mapping[str, Any] = field(default_factory=dict)

    @property
    def written(self) -> str:
        """The configuration as JSON: the same text for the same architecture."""
        return json.dumps(self.config, sort_keys=True)


ARCHITECTURES: dict[str, Architecture] = {}
_TAUGHT: dict[str, str] = {}  # what open_clip was told last, by name


def register(architecture: Architecture) -> Architecture:
    """A model of the grid may have this architecture. Raises UserError if it is none."""
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in architecture.config]
    UserError.unless_none(f"model '{architecture.name}': its configuration lacks {key}; add it" for key in missing)
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def teach(open_clip: Any) -> None:
    """open_clip knows every architecture of the table as it is now."""
    new = {name: one.written for name, one in ARCHITECTURES.items() if _TAUGHT.get(name) != one.written}
    with tempfile.TemporaryDirectory() as folder:  # open_clip reads them at once
        for name, written in new.items():
            Path(folder, f"{name}.json").write_text(written, encoding="utf-8")
            open_clip.add_model_config(folder)
    _TAUGHT.update(new)
