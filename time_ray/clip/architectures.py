"""Architectures from outside: what open_clip does not know by itself, and is told before it builds one."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from time_ray.clip.mini import MODELS
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
TOKENIZER_SETTINGS = frozenset(  # of open_clip's own tokenizers; others may name code that is to be run
    (
        "additional_special_tokens",
        "bpe_path",
        "clean",
        "context_length",
        "language",
        "reduction_mask",
        "strip_sep_token",
    )
)


def register(architecture: Architecture) -> Architecture:
    """A model of the grid may have this architecture. Raises UserError if it is none."""
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in architecture.config]
    UserError.unless_none(f"model '{architecture.name}': its configuration lacks {key}; add it" for key in missing)
    UserError.unless_none(_foreign(architecture.name, architecture.config["text_cfg"]))
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def _foreign(name: str, text_cfg: Mapping[str, Any]) -> Iterator[str]:
    """Where a configuration from outside would have code run that comes with neither open_clip nor time_ray."""
    for setting in sorted({*text_cfg.get("tokenizer_kwargs", {})} - TOKENIZER_SETTINGS):
        yield f"model '{name}': tokenizer_kwargs: {setting} is refused, as it may run foreign code; leave it out"


def teach(open_clip: Any) -> None:
    """open_clip knows every architecture of the mini models, and of the table as it is now.

    They are told without files: open_clip reads those that it was told of again and again, wherever they lie.
    """
    known = open_clip.factory._MODEL_CONFIGS  # noqa: SLF001 there is no other way but by files
    known.update({name: model.config for name, model in MODELS.items()})
    known.update({name: json.loads(one.written) for name, one in ARCHITECTURES.items()})
