"""What a model is, by what is given: tensors, a file, an index of shards, a folder, or an adapter beside its base."""

from collections.abc import Mapping
from pathlib import Path

from time_ray.merging.checkpoints import CheckpointModel
from time_ray.merging.errors import MergeError, collecting
from time_ray.merging.lora import CONFIG, WEIGHTS, LoraModel
from time_ray.merging.models import MAPPED, MAPPED_IN_ALL, FileModel, MemoryModel, Model, ModelLike, StoredModel
from time_ray.merging.shards import ShardedModel
from time_ray.merging.wrappers import unwrapped

IN_FOLDERS = (
    "model.safetensors.index.json",
    "open_clip_model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""What a folder's model is called, the first that is there."""


def open_model(model: ModelLike, label: str, base: Model | None = None, mapped: int = MAPPED) -> Model:
    """The model behind tensors or a path, without what wrappers put before its names; MergeError if it is none.

    A path is a safetensors file, a torch checkpoint (with a `state_dict` inside, too), the `index.json` of a sharded
    set, or a folder of these; with its `base` also the folder of a LoRA adapter.
    """
    if isinstance(model, Mapping):
        return unwrapped(MemoryModel(model, label), base)
    path = Path(model)
    if is_adapter(path):
        return adapter(path if path.is_dir() else path.parent, base)
    return unwrapped(open_path(path, mapped), base)


def is_adapter(path: Path) -> bool:
    """Whether that is the folder of an adapter, or a file of one."""
    return path.name in (CONFIG, *WEIGHTS) or any((path / name).is_file() for name in (CONFIG, *WEIGHTS))


def adapter(folder: Path, base: Model | None) -> Model:
    """The expert that an adapter makes of the base."""
    if base is None:
        raise MergeError(f"{folder}: is an adapter, which is no model without its base; give it as an expert")
    return LoraModel(folder, base)


def open_path(path: Path, mapped: int) -> StoredModel:
    """The model in a file or folder."""
    if path.is_dir():
        inside = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
        if inside is None:
            raise MergeError(f"{path}: a folder without {IN_FOLDERS[0]} or any other model; give the path of a model")
        path = inside
    if path.name.endswith(".index.json"):
        return ShardedModel(path, lambda shard: open_file(shard, mapped))
    return open_file(path, mapped)


def open_file(path: Path, mapped: int) -> StoredModel:
    """The model in a file."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise MergeError(f"{path}: is no plain file; give the path of a model")
    return FileModel(path, mapped) if is_safetensors(path) else CheckpointModel(path)


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as a safetensors file does: the length of a header, and its brace."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise MergeError(f"{path}: cannot be read ({error.strerror}); give the path of a model") from error


def open_each(models: Mapping[str, ModelLike], base: Model | None = None) -> tuple[dict[str, Model], list[str]]:
    """The models by label, and what is wrong with those that are none."""
    opened: dict[str, Model] = {}
    faults: list[str] = []
    for label, model in models.items():
        with collecting(faults):
            opened[label] = open_model(model, label, base, min(MAPPED, MAPPED_IN_ALL // (len(models) + 1)))
    return opened, faults


def open_models(models: Mapping[str, ModelLike], base: Model) -> dict[str, Model]:
    """The models by label; MergeError lists every one that is none."""
    opened, faults = open_each(models, base)
    MergeError.unless_none(faults)
    return opened
