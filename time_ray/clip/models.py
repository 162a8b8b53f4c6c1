"""open_clip models: built by name, filled from local files or open_clip tags. Nothing is ever unpickled."""

import copy
import difflib
import hashlib
import json
import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec

KEPT_TEXTS = 65536
ALIGNMENT = 64  # bytes; where a tensor starts may decide how a matrix product rounds


class Clip:
    """An open_clip architecture with room for one set of weights, its tokenizer and its image format.

    `module` is working memory: whoever uses it loads the weights it needs first. `image_size` is the side of the
    square input in pixels; `mean` and `std` are per channel, for pixels in 0..1.
    """

    def __init__(self, name: str, module: nn.Module, tokenizer: Any) -> None:
        self.name = name
        self.module = module
        visual: Any = module.visual
        size = visual.image_size
        self.image_size: int = size if isinstance(size, int) else size[0]
        self.mean: tuple[float, ...] = tuple(visual.image_mean)
        self.std: tuple[float, ...] = tuple(visual.image_std)
        self._tokenizer = tokenizer
        self._row = lru_cache(maxsize=KEPT_TEXTS)(self._tokens)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Tokens as int64 [len(texts), context length]; a text seen before costs a look-up."""
        return torch.stack([self._row(text) for text in texts])

    def load(self, weights: Mapping[str, Tensor], device: str | torch.device = "cpu") -> nn.Module:
        """The module on the device, holding a copy of the weights."""
        self.module.to(device)
        self.module.load_state_dict(weights)
        return self.module

    def holding(self, weights: Mapping[str, Tensor], device: str | torch.device = "cpu") -> "Clip":
        """A model beside this one that holds these weights on the device, for inference only.

        Tensors that are fit for it are shared with the caller, not copied: they must not change while it is used.
        """
        mine = self.module.to(device).state_dict(keep_vars=True)
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module, {id(tensor): tensor for tensor in mine.values()}).eval()
        twin.module.load_state_dict(
            {name: _placed(tensor, mine[name]) if name in mine else tensor for name, tensor in weights.items()},
            assign=True,
        )
        return twin

    def pixels(self, images: Tensor) -> Tensor:
        """The model's input from uint8 images [B, 3, H, W]: float32, normalised per channel."""
        mean, std = (255 * torch.tensor(stat, device=images.device).view(-1, 1, 1) for stat in (self.mean, self.std))
        return images.to(torch.float32).sub_(mean).div_(std)

    def _tokens(self, text: str) -> Tensor:
        row: Tensor = self._tokenizer([text])[0]
        return row


def _placed(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor on the device and of the type of another, at an address like those that torch allocates."""
    tensor = tensor.to(like.device, like.dtype)
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def create(spec: ModelSpec) -> Clip:
    """The model of that name in float32 on the CPU, with weights yet to be loaded.

    Raises UserError for a name that open_clip does not know, or that needs a package that is not here.
    """
    _add_mini_models()
    name = _known(spec.name)
    try:
        with _open_clip_quiet():
            module = open_clip.create_model(
                name, load_weights=False, pretrained_text=False, force_preprocess_cfg=_preprocessing(spec)
            )
        return Clip(name, module, open_clip.get_tokenizer(name))
    except ImportError as error:
        msg = f"model {name}: needs a package that is not installed ({error}); install it, or choose another model"
        raise UserError(msg) from error


@cache
def outline(name: str) -> nn.Module:
    """The architecture without memory behind its tensors.

    Raises UserError for a name that open_clip does not know or that is not supported here.
    """
    _add_mini_models()
    with _open_clip_quiet(), torch.device("meta"):
        module: nn.Module = open_clip.create_model(
            _known(name), load_weights=False, pretrained_text=False, device="meta"
        )
    return module


@cache
def num_bytes(spec: ModelSpec) -> int:
    """Bytes of the model's weights in float32. Raises UserError as `outline` does."""
    return sum(4 * tensor.numel() for tensor in outline(spec.name).state_dict().values())


def base_weights(spec: ModelSpec) -> dict[str, Tensor]:
    """The pretrained weights θ_0 in float32 on the CPU, named and ordered as the architecture has them.

    Raises UserError for a file that cannot be read without running code from it, that is missing, or that does not
    fit: then every tensor that differs is listed.
    """
    module = create(spec).module
    path = _weights_file(spec)
    found = _converted(module, _read(path), path)
    wanted = module.state_dict()
    UserError.unless_none(_mismatches(spec.name, path, found, wanted))
    return {name: _float32(found[name]) for name in wanted}


def weights_digest(spec: ModelSpec) -> str:
    """A name for the base weights that changes when they do: of a file's bytes, or of an open_clip tag as written.

    A file is read once in a process for as long as its size and time stand; a tag is never downloaded for this.
    Raises UserError for shipped weights that are not as they were shipped.
    """
    _add_mini_models()
    _known(spec.name)
    if _is_tag(spec):
        return hashlib.sha256(f"open_clip {spec.name} {spec.weights}".encode()).hexdigest()
    path = _weights_file(spec)
    stat = path.stat()
    digest = _file_digest(path, stat.st_size, stat.st_mtime_ns)
    if spec.weights is None and digest != _shipped_digest(path):
        msg = f"model {spec.name}: {path}: not as it was shipped; install time_ray again"
        raise UserError(msg)
    return digest


def _shipped_digest(weights: Path) -> str | None:
    """What the card beside shipped weights says of them; None if it cannot be read."""
    try:
        found = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return str(found)


@lru_cache(maxsize=256)
def _file_digest(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _add_mini_models() -> None:
    from time_ray.clip import mini

    open_clip.add_model_config(mini.model_config_dir())


@contextmanager
def _open_clip_quiet() -> Iterator[None]:
    """Silence open_clip's warning about random weights: they are replaced before anything uses them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _known(name: str) -> str:
    names = open_clip.list_models()
    if name in names:
        UserError.unless_none(_unsupported(name))
        return name
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else "open_clip.list_models() names them all"
    msg = f"model {name}: open_clip has no such architecture; {hint}"
    raise UserError(msg)


def _unsupported(name: str) -> Iterator[str]:
    """What open_clip knows and the contrastive softmax loss of TIME does not fit."""
    config = open_clip.get_model_config(name)
    if config.get("init_logit_bias") is not None:
        yield f"model {name}: SigLIP's sigmoid loss is not supported; choose a CLIP architecture, such as ViT-B-16"
    elif "multimodal_cfg" in config:
        yield f"model {name}: CoCa's caption decoder is not supported; choose a CLIP architecture, such as ViT-B-16"
    elif "hf_model_name" in config["text_cfg"]:
        yield f"model {name}: text towers of the Hugging Face hub are not supported; choose one such as ViT-B-16"


def _preprocessing(spec: ModelSpec) -> dict[str, Any]:
    """The mean and standard deviation that a tag's weights were trained with."""
    config = open_clip.get_pretrained_cfg(spec.name, spec.weights) if _is_tag(spec) else {}
    return {key: config[key] for key in ("mean", "std") if key in config}


def _is_tag(spec: ModelSpec) -> bool:
    """Whether the weights are an open_clip tag; a file of that name goes first."""
    return (
        spec.weights is not None
        and not Path(spec.weights).is_file()
        and open_clip.is_pretrained_cfg(spec.name, spec.weights)
    )


def _weights_file(spec: ModelSpec) -> Path:
    if spec.weights is None:
        return _shipped(spec.name)
    if Path(spec.weights).is_file():
        return Path(spec.weights).resolve()
    if _is_tag(spec):
        return _downloaded(spec.name, spec.weights)
    tags = open_clip.list_pretrained_tags_by_model(spec.name)
    close = difflib.get_close_matches(spec.weights, tags, n=1)
    hint = f"did you mean {close[0]}?" if close else f"its tags: {', '.join(tags) or 'none'}"
    msg = f"model {spec.name}: weights {spec.weights}: no such file, and no tag of this model; {hint}"
    raise UserError(msg)


def _shipped(name: str) -> Path:
    from time_ray.clip import mini

    if name not in mini.MODELS:
        msg = f"model {name}: no weights are shipped for it; set weights to a safetensors or torch file, or a tag"
        raise UserError(msg)
    return mini.MODELS[name].weights


def _downloaded(name: str, tag: str) -> Path:
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, tag)))
    except (OSError, RuntimeError) as error:
        msg = (
            f"model {name}: weights {tag}: cannot be downloaded here ({_first_line(error)}); "
            "download them elsewhere and set weights to the file"
        )
        raise UserError(msg) from error


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, as stored."""
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        with warnings.catch_warnings(action="ignore"):
            content = load_file(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = f"{path}: holds more than tensors, and pickled code is never run; save its state dict as safetensors"
        raise UserError(msg) from error
    except Exception as error:  # what is no such file breaks its reader in many ways
        msg = f"{path}: not a readable safetensors or torch file ({_first_line(error)})"
        raise UserError(msg) from error
    return _state_dict(content, path)


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, with the prefix that DistributedDataParallel adds taken off."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        msg = f"{path}: holds no state dict (names to tensors); save the model's state_dict()"
        raise UserError(msg)
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _converted(module: nn.Module, found: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under open_clip's names, with a temperature of the architecture's shape."""
    try:
        found = convert_state_dict(module, found)
    except KeyError as error:
        msg = f"{path}: looks like a MobileCLIP checkpoint, but lacks {error}"
        raise UserError(msg) from error
    if hasattr(module, "text") and "positional_embedding" in found:
        found = open_clip.model.convert_to_custom_text_state_dict(found)
    scale = found.get("logit_scale")
    if scale is not None and scale.numel() == 1:
        found["logit_scale"] = scale.reshape(module.state_dict()["logit_scale"].shape)
    return found


def _mismatches(model: str, path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        if name not in found:
            yield f"{path}: {name}: missing; {model} has {list(tensor.shape)}"
        elif found[name].shape != tensor.shape:
            yield f"{path}: {name}: shape {list(found[name].shape)}, but {model} has {list(tensor.shape)}"
    for name in found.keys() - wanted.keys():
        yield f"{path}: {name}: {model} has no such tensor"


def _float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
