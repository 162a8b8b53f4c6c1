"""The final weights of a cell as safetensors bytes: as they were served, or at another length."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from time_ray.core.errors import UserError
from time_ray.core.grid import last
from time_ray.core.recipe import Reestimated, describe
from time_ray.results import CellResult
from time_ray.store.store import Store


class FinalWeights(NamedTuple):
    """Bytes, their SHA-256, and how they were made."""

    data: bytes
    digest: str
    about: Mapping[str, object]


def final_weights(
    result: CellResult, store: Store, length: float = 1.0, *, again: str = "the sweep again"
) -> FinalWeights:
    """What a cell serves last, moved to that length.

    Args:
        result: of a cell that is done.
        store: where its weights are.
        length: 1 for what it serves.
        again: the command that makes what is missing.

    Raises:
        UserError: the weights are not in the store, or not whole there; or another length needs data.

    """
    cell, entry = result.cell, result.weights
    data = store.payload("weights", result.final_key, entry) if entry else None
    if entry is None or data is None:
        raise UserError(f"{cell.name}: its weights are not there; run: {again}")
    if length == 1:
        return FinalWeights(data, str(entry["digest"]), entry)
    recipe = cell.recipe_at(last(cell), length)
    if isinstance(recipe, Reestimated):
        how = f"write deploy as {{name: {cell.deploy.name}, patch: {length:g}}} and run {again}"
        raise UserError(f"{cell.name}: at length {length:g} BatchNorm's statistics are estimated on data; {how}")
    moved = _moved(data, result, length)
    digest = hashlib.sha256(moved).hexdigest()
    about = {**entry, "recipe": describe(recipe), "digest": digest, "bytes": len(moved)}
    return FinalWeights(moved, digest, {name: value for name, value in about.items() if name != "payload"})


def _moved(data: bytes, result: CellResult, length: float) -> bytes:
    from safetensors.torch import load, save  # imports torch, which no other length needs

    from time_ray.clip.models import base_weights
    from time_ray.merging import patch

    return save(patch(base_weights(result.cell.setting.model), load(data), length))
