"""Entries as files: what is written of one, and what may be read back from what anybody can have written there."""

import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from time_ray.plain_names import is_plain
from time_ray.store.files import Files
from time_ray.store.sealed import sealed, unsealed, written
from time_ray.store.signing import Signer

Entry = dict[str, object]
PAYLOADS = "payloads"
PROGRESS = "progress"
KINDS = ("weights", "scores", "rates", "tracked", "sweeps", "searches")
SIGNATURE = "signature"
_ENTRY_NAME = re.compile(r"[\w-]+-(?P<size>\d+)\.json")
_Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class DamagedError(Exception):
    """The file holds no entry that can be used: why."""


class _Shape(BaseModel):
    """What readers of any entry rely on; there may be more in it."""

    model_config = ConfigDict(strict=True)

    digest: _Digest | None = None
    payload: str | None = None
    recipe: dict[str, Any] = {}


class _Weights(_Shape):
    digest: _Digest
    payload: str
    bytes: int
    seconds: dict[str, float] = {}
    curve: list[Annotated[list[float], Field(min_length=3, max_length=3)]] = []


class _Scores(_Shape):
    accuracy: dict[str, float]
    seconds: dict[str, float] = {}
    distance: float | None = None
    classes: dict[str, list[str]] = {}


class _Sweep(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    experiment: str
    about: str
    written: str
    cells: list[str]
    varying: list[str]
    versions: dict[str, Any]
    seconds: float


class _Pair(BaseModel):
    model_config = ConfigDict(strict=True)

    inits: Annotated[list[str], Field(min_length=2, max_length=2)]
    df: Annotated[float, Field(gt=0)]
    variance: Annotated[float, Field(ge=0)]
    pooled: Annotated[float, Field(gt=0)]


class _Mean(BaseModel):
    model_config = ConfigDict(strict=True)

    init: str
    value: float


class _Known(BaseModel):
    model_config = ConfigDict(strict=True)

    sweep: str
    of: Annotated[list[str], Field(min_length=2, max_length=2)]
    cells: int
    seeds: int
    pairs: list[_Pair]
    means: list[_Mean]


class _Search(BaseModel):
    model_config = ConfigDict(strict=True)

    known: list[_Known]


_SHAPES: Mapping[str, type[BaseModel]] = {"weights": _Weights, "scores": _Scores, "sweeps": _Sweep, "searches": _Search}


def write_entry(files: Files, kind: str, key: str, entry: Mapping[str, object], signer: Signer | None) -> None:
    """The entry lies under the key, in a file of its own. ValueError for what JSON cannot hold, such as NaN."""
    signed = {SIGNATURE: signer.sign(kind, key, written(entry))} if signer else {}
    data = sealed({**entry, **signed})
    files.write(data, kind, key[:2], key, f"{uuid.uuid4().hex}-{len(data)}.json")


def entry_in(kind: str, key: str, data: bytes, signer: Signer | None) -> Entry:
    """The entry in a file. Raises DamagedError if it is not as it was written, or not by who has the key."""
    entry = unsealed(data)
    if entry is None:
        raise DamagedError("its seal does not match")
    signature = entry.pop(SIGNATURE, None)
    if signer is not None and not signer.has_signed(signature, kind, key, written(entry)):
        raise DamagedError("is not signed" if signature is None else "its signature does not match")
    try:
        _SHAPES.get(kind, _Shape).model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    if "payload" in entry and not is_payload(str(entry["payload"]), str(entry.get("digest"))):
        raise DamagedError("its payload is no file of the store")
    return entry


def is_payload(path: str, digest: str) -> bool:
    """Whether bytes of that digest may lie there."""
    folder, *names = path.split("/")
    return folder == PAYLOADS and names[:-1] == [digest[:2], digest] and all(map(is_plain, names))


def is_entry(kind: str, names: list[str]) -> bool:
    """Whether the parts of a path below the folder of its kind are those of an entry, whole or not."""
    return (
        kind in KINDS
        and len(names) == 3
        and names[1].startswith(names[0])
        and all(map(is_plain, names))
        and names[2].endswith(".json")
    )


def size_in(name: str) -> int | None:
    """The size that an entry's file has by its name, once it is whole."""
    found = _ENTRY_NAME.fullmatch(name)
    return int(found["size"]) if found else None
