"""Torch checkpoints: tensors only, mapped from the file where it allows that; pickled code is never run."""

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from time_ray.merging.errors import MergeError
from time_ray.merging.models import MemoryModel, OpenFile, StoredModel
from time_ray.merging.pieces import TensorEntry

WITHIN = ("state_dict", "model_state_dict", "model", "module")
"""Where training loops keep the weights in a checkpoint."""


MAGIC = (b"PK", b"\x80")
"""How files of `torch.save` begin: an archive, or in its old format a pickle."""


class CheckpointModel(StoredModel):
    """A file that `torch.save` has written: a state dict, or a checkpoint with one inside."""

    def __init__(self, path: Path) -> None:
        """MergeError says what else the file is."""
        self.label, self.path, self.name = str(path), path, path.name
        self.files, self.metadata = (OpenFile(path),), {}
        content = loaded(path)
        self.tensors = MemoryModel(state_dict_in(content, path), str(path))
        self.notes = tuple(others_beside(content, path))
        self.entries = self.tensors.entries

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """A view of the tensor."""
        return self.tensors.read(entry, start, stop)


def loaded(path: Path) -> object:
    """What the file holds, tensors on the CPU and mapped (the old format cannot be, and is read whole)."""
    with path.open("rb") as file:
        if not file.read(2).startswith(MAGIC):
            raise MergeError(f"{path}: neither a safetensors file nor a torch checkpoint; give one")
    try:
        with warnings.catch_warnings(action="ignore"):
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MergeError(
            f"{path}: holds more than tensors, and pickled code is never run; save its state dict as safetensors"
        ) from error
    except Exception as error:  # what is no such file breaks its reader in many ways
        if "TorchScript" in str(error):
            raise MergeError(
                f"{path}: a TorchScript archive, which holds code; save the state_dict() of torch.jit.load(...) instead"
            ) from error
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise MergeError(f"{path}: not a readable safetensors or torch file ({first}); give one") from error


def state_dict_in(content: object, path: Path) -> dict[str, Any]:
    """The tensors by name."""
    while isinstance(content, dict) and (key := key_within(content)):
        content = content[key]
    if not isinstance(content, dict) or not is_state_dict(content):
        raise MergeError(f"{path}: holds no state dict (names to tensors); save the model's state_dict()")
    return {str(name): value for name, value in content.items()}


def key_within(content: Mapping[str, Any]) -> str | None:
    """Where a checkpoint keeps its weights; None if it is the weights."""
    return next((key for key in WITHIN if isinstance(content.get(key), dict)), None)


def is_state_dict(content: Mapping[str, Any]) -> bool:
    """Whether there are tensors in it."""
    return any(isinstance(value, Tensor) for value in content.values())


def others_beside(content: object, path: Path) -> Iterator[str]:
    """A note on each other model in a checkpoint, such as a moving average of the weights that are read."""
    read = key_within(content) if isinstance(content, dict) else None
    for key, value in content.items() if isinstance(content, dict) and read else ():
        if key != read and isinstance(value, dict) and is_state_dict(value):
            yield f"{path}: holds {key} beside {read}, which is read; save what you want of them alone"
