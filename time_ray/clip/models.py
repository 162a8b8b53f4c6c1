"""open_clip models: built by name, filled from local files or open_clip tags. Nothing is ever unpickled."""

import copy
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from torch import Tensor, nn

from time_ray.clip.preprocessing import resolve
from time_ray.clip.weight_files import read_outline, read_weights
from time_ray.clip.weights import known_name, open_clip_with_ours, weights_file
from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec
from time_ray.core.preprocessing import Preprocessing
from time_ray.core.recipe import GivenExpert
from time_ray.whole_files import file_digest

KEPT_TEXTS = 65536
ANCHOR = "logit_scale"  # a tensor that every CLIP model has
ALIGNMENT = 64  # bytes; where a tensor starts may decide how a matrix product rounds


class Clip:
    """An open_clip architecture with room for one set of weights, its tokenizer and its preprocessing.

    `module` is working memory: whoever uses it loads the weights it needs first.
    """

    def __init__(self, name: str, module: nn.Module, tokenizer: Any, preprocessing: Preprocessing) -> None:
        self.name = name
        self.module = module
        self.preprocessing = preprocessing
        self.compiled_block: Callable[..., Tensor] | None = None  # while features run it (see features.compiling)
        self.compiles = True  # until that was tried in vain
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
        stats = (self.preprocessing.mean, self.preprocessing.std)
        mean, std = (_per_channel(stat, images.device) for stat in stats)
        return images.to(torch.float32).sub_(mean).div_(std)

    def _tokens(self, text: str) -> Tensor:
        row: Tensor = self._tokenizer([text])[0]
        return row


@cache
def _per_channel(stat: tuple[float, ...], device: torch.device) -> Tensor:
    """A statistic of pixels in 0..255 [3, 1, 1]. Made once: a copy to a GPU would wait for all it has to do."""
    with torch.inference_mode(mode=False):  # training will use what evaluation made
        return 255 * torch.tensor(stat, device=device).view(-1, 1, 1)


def _placed(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor on the device and of the type of another, at an address like those that torch allocates."""
    tensor = tensor.to(like.device, like.dtype)
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def create(spec: ModelSpec) -> Clip:
    """The model of that name in float32 on the CPU, with weights yet to be loaded.

    Raises UserError for a name that open_clip does not know, that needs a package that is not here, or whose
    preprocessing contradicts it.
    """
    name = known_name(spec.name)
    wanted = resolve(spec)
    try:
        module = build(name, quick_gelu=wanted.quick_gelu)
        return Clip(name, module, open_clip.get_tokenizer(name), wanted.preprocessing)
    except ImportError as error:
        msg = f"model {name}: needs a package that is not installed ({error}); install it, or choose another model"
        raise UserError(msg) from error


@cache
def outline(name: str) -> nn.Module:
    """The architecture without memory behind its tensors.

    Raises UserError for a name that open_clip does not know or that is not supported here.
    """
    with torch.device("meta"):
        return build(known_name(name), device="meta")


def build(name: str, *, device: str = "cpu", **changes: Any) -> nn.Module:
    """open_clip's module of that architecture, whose configuration has these changes; its weights are random."""
    open_clip_with_ours()
    with _open_clip_quiet():
        module: nn.Module = open_clip.create_model(
            name, load_weights=False, pretrained_text=False, device=device, **changes
        )
    return module


@cache
def num_bytes(spec: ModelSpec) -> int:
    """Bytes of the model's weights in float32. Raises UserError as `outline` does."""
    return sum(4 * tensor.numel() for tensor in outline(spec.name).state_dict().values())


def base_weights(spec: ModelSpec) -> dict[str, Tensor]:
    """The pretrained weights θ_0 in float32 on the CPU, named and ordered as the architecture has them.

    Raises UserError for a file that cannot be read without running code from it, that is missing, or that does not
    fit: then every tensor that differs is listed. Nor may a value be NaN or Inf.
    """
    return _weights_in(weights_file(spec), spec)


def expert_weights(spec: ModelSpec, given: GivenExpert) -> dict[str, Tensor]:
    """An expert of the model, from its file. Raises UserError as `base_weights` does, and if the file was changed."""
    path = Path(given.path)
    if not path.is_file() or file_digest(path) != given.digest:
        msg = f"{path}: gone, or changed since the sweep began; start the sweep again"
        raise UserError(msg)
    return _weights_in(path, spec)


def unfit(spec: ModelSpec, path: Path) -> list[str]:
    """What of the names and shapes in a file is not as the model has them; no value is read."""
    module = outline(spec.name)
    try:
        found = _converted(module, read_outline(path), path)
    except UserError as error:
        return list(error.faults)
    return _inside(spec.name, path, found) or list(_mismatches(spec.name, path, found, module.state_dict()))


def _weights_in(path: Path, spec: ModelSpec) -> dict[str, Tensor]:
    module = create(spec).module
    found = _converted(module, read_weights(path), path)
    wanted = module.state_dict()
    UserError.unless_none(_inside(spec.name, path, found) or _mismatches(spec.name, path, found, wanted))
    weights = {name: _float32(found[name]) for name in wanted}
    UserError.unless_none(_not_finite(path, weights))
    return weights


@contextmanager
def _open_clip_quiet() -> Iterator[None]:
    """Silence open_clip's warning about random weights, which are replaced before anything uses them.

    It goes to the root logger. Only this thread's is silenced: others may be at something that people must hear of.
    """
    thread = threading.get_ident()

    def is_heard(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno > logging.WARNING

    logging.root.addFilter(is_heard)
    try:
        yield
    finally:
        logging.root.removeFilter(is_heard)


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


def _inside(model: str, path: Path, found: Mapping[str, Tensor]) -> list[str]:
    """One line instead of one for every tensor, where the model is a part of what was saved."""
    if ANCHOR in found:
        return []
    prefixes = sorted(name.removesuffix(ANCHOR) for name in found if name.endswith(f".{ANCHOR}"))
    where = " and ".join(f"'{prefix}'" for prefix in prefixes)
    remedy = "save the state_dict() of that part alone"
    return [f"{path}: names of {model} begin with {where} here; {remedy}"] if prefixes else []


def _not_finite(path: Path, weights: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in weights.items():
        if not (finite := torch.isfinite(tensor)).all():
            count = tensor.numel() - int(finite.sum())
            yield f"{path}: {name}: {count} of {tensor.numel()} values are NaN or Inf; give weights without"


def _mismatches(model: str, path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        if name not in found:
            yield f"{path}: {name}: missing; {model} has {list(tensor.shape)}"
        elif found[name].shape != tensor.shape:
            yield f"{path}: {name}: shape {list(found[name].shape)}, but {model} has {list(tensor.shape)}"
        elif found[name].is_floating_point() != tensor.is_floating_point():
            yield f"{path}: {name}: {_kind(found[name])}, but {model} has {_kind(tensor)}; convert it"
    for name in sorted(found.keys() - wanted.keys()):
        yield f"{path}: {name}: {model} has no such tensor"


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor
