"""Sharded sets: one model in many files, listed by an `index.json` as transformers and safetensors write it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from time_ray.merging.errors import MergeError, collecting
from time_ray.merging.models import OpenFile, StoredModel
from time_ray.merging.pieces import TensorEntry

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""


class ShardedModel(StoredModel):
    """The tensors of all shards, in the order of the index, which must list them all."""

    def __init__(self, index: Path, open_shard: Callable[[Path], StoredModel]) -> None:
        """MergeError names every shard that is no model, and every tensor that is not where the index says."""
        self.label, self.path, self.name = str(index), index, index.name
        places = weight_map(index)
        shards: dict[str, StoredModel] = {}
        faults: list[str] = []
        for shard in dict.fromkeys(places.values()):
            with collecting(faults):
                shards[shard] = open_shard(index.parent / shard)
        held = {shard: model.by_name() for shard, model in shards.items()}
        faults += [
            f"{index}: {name} is not in {shard}; give all files of one set"
            for name, shard in places.items()
            if shard in held and name not in held[shard]
        ]
        faults += [
            f"{index}: does not list {name} of {shard}; give all files of one set"
            for shard, entries in held.items()
            for name in entries
            if name not in places
        ]
        MergeError.unless_none(faults)
        self.home = {name: shards[shard] for name, shard in places.items()}
        self.entries = tuple(held[shard][name] for name, shard in places.items())
        self.files = (OpenFile(index), *(file for model in shards.values() for file in model.files))
        self.metadata = {"format": "pt"}

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """What the shard that holds it reads."""
        return self.home[entry.name].read(entry, start, stop)


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor; files lie beside the index."""
    try:
        found = json.loads(index.read_bytes())["weight_map"]
        places = {str(name): str(shard) for name, shard in found.items()}
    except OSError as error:
        raise MergeError(f"{index}: cannot be read ({error.strerror}); give the path of a model") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MergeError(f"{index}: no index of a sharded model (it has no weight_map); give one") from error
    outside = sorted({shard for shard in places.values() if not is_beside(shard)})
    MergeError.unless_none(f"{index}: {shard!r} is not beside it; a set lies in one folder" for shard in outside)
    return places


def is_beside(shard: str) -> bool:
    """Whether that can be the name of a file in the same folder."""
    is_name = bool(shard) and shard != ".." and Path(shard).name == shard and shard.isprintable()
    return is_name and len(os.fsencode(shard)) <= LONGEST_NAME
