"""Which weights a model starts from: shipped ones, a local file, or an open_clip tag, and the digest that names them.

Planning needs no more of a model than this, so nothing here imports open_clip, which brings torch, before it must.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from time_ray.clip.architectures import ARCHITECTURES, Architecture, teach
from time_ray.clip.mini import MODELS
from time_ray.core.errors import UserError, nearest
from time_ray.core.model import ModelSpec
from time_ray.whole_files import file_digest


def weights_digest(spec: ModelSpec) -> str:
    """A name for the base weights that changes when they do: of a file's bytes, or of an open_clip tag as written.

    A file is read once in a process for as long as its size and time stand; a tag is never downloaded for this.
    Raises UserError for shipped weights that are not as they were shipped.
    """
    known_name(spec.name)
    if is_tag(spec):
        return hashlib.sha256(f"open_clip {spec.name} {spec.weights}".encode()).hexdigest()
    path = weights_file(spec)
    stat = path.stat()
    digest = _digest_while(path, stat.st_size, stat.st_mtime_ns)
    if spec.weights is None and digest != _shipped_digest(path):
        msg = f"model {spec.name}: {path}: not as it was shipped; install time_ray again"
        raise UserError(msg)
    return digest if spec.name not in ARCHITECTURES else _digest_with(ARCHITECTURES[spec.name], digest)


def _digest_with(architecture: Architecture, digest: str) -> str:
    """The name of the weights in an architecture from outside, whose own name does not say what it is."""
    return hashlib.sha256(f"{architecture.written} {digest}".encode()).hexdigest()


def known_name(name: str) -> str:
    """The name of a supported architecture. Raises UserError for any other, with the nearest one."""
    config = architecture_config(name)
    if config is not None:
        UserError.unless_none(_unsupported(name, config))
        return name
    hint = nearest(name, open_clip_with_ours().list_models()) or "; open_clip.list_models() names them all"
    msg = f"model {name}: open_clip has no such architecture{hint}"
    raise UserError(msg)


def weights_file(spec: ModelSpec) -> Path:
    """The file that holds the base weights; a tag is downloaded. Raises UserError where there is none."""
    if spec.weights is None:
        return _shipped(spec.name)
    if Path(spec.weights).is_file():
        return Path(spec.weights).resolve()
    if is_tag(spec):
        return _downloaded(spec.name, spec.weights)
    tags = open_clip_with_ours().list_pretrained_tags_by_model(spec.name)
    hint = nearest(spec.weights, tags) or f"; its tags: {', '.join(tags) or 'none'}"
    msg = f"model {spec.name}: weights {spec.weights}: no such file, and no tag of this model{hint}"
    raise UserError(msg)


def is_tag(spec: ModelSpec) -> bool:
    """Whether the weights are an open_clip tag; a file of that name goes first."""
    if spec.weights is None or Path(spec.weights).is_file():
        return False
    return bool(open_clip_with_ours().is_pretrained_cfg(spec.name, spec.weights))


def open_clip_with_ours() -> Any:
    """The module open_clip, which knows the mini models and those of plugins as well."""
    import open_clip

    teach(open_clip)
    return open_clip


def is_known(name: str) -> bool:
    """Whether there is an architecture of this name."""
    return architecture_config(name) is not None


def architecture_names() -> Iterator[str]:
    """Every architecture that comes with open_clip or time_ray, or from a plugin."""
    yield from (*MODELS, *ARCHITECTURES, *_own_configs())


def architecture_config(name: str) -> Mapping[str, Any] | None:
    """The architecture as open_clip describes it; None for a name that it does not know."""
    if name in MODELS:
        return MODELS[name].config
    if name in ARCHITECTURES:
        return ARCHITECTURES[name].config
    if "open_clip" in sys.modules:  # this process may have taught it others
        known: Mapping[str, Any] | None = open_clip_with_ours().get_model_config(name)
        return known
    file = _own_configs().get(name)
    return None if file is None else dict(json.loads(file.read_text(encoding="utf-8")))


@cache
def _own_configs() -> dict[str, Path]:
    """The architectures that come with open_clip, by name: they are files, and can be read without importing it."""
    spec = find_spec("open_clip")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    return {path.stem: path for folder in folders for path in Path(folder, "model_configs").glob("*.json")}


def _unsupported(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """What open_clip knows and the contrastive softmax loss of TIME does not fit."""
    if config.get("init_logit_bias") is not None:
        yield f"model {name}: SigLIP's sigmoid loss is not supported; choose a CLIP architecture, such as ViT-B-16"
    elif "multimodal_cfg" in config:
        yield f"model {name}: CoCa's caption decoder is not supported; choose a CLIP architecture, such as ViT-B-16"
    elif "hf_model_name" in config["text_cfg"]:
        yield f"model {name}: text towers of the Hugging Face hub are not supported; choose one such as ViT-B-16"


def _shipped(name: str) -> Path:
    if name not in MODELS:
        msg = f"model {name}: no weights are shipped for it; set weights to a safetensors or torch file, or a tag"
        raise UserError(msg)
    return MODELS[name].weights


def _shipped_digest(weights: Path) -> str | None:
    """What the card beside shipped weights says of them; None if it cannot be read."""
    try:
        found = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return str(found)


@lru_cache(maxsize=256)
def _digest_while(path: Path, _size: int, _mtime_ns: int) -> str:
    return file_digest(path)


def _downloaded(name: str, tag: str) -> Path:
    open_clip = open_clip_with_ours()
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, tag)))
    except (OSError, RuntimeError) as error:
        msg = (
            f"model {name}: weights {tag}: cannot be downloaded here ({first_line(error)}); "
            "download them elsewhere and set weights to the file"
        )
        raise UserError(msg) from error


def first_line(error: Exception) -> str:
    """What an error of a library says first."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
