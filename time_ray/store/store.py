"""Weights and scores under their recipe's key.

An entry is a small sealed JSON file with its size in its name: a listing tells a whole one from a half-written one,
and its seal tells whether a byte was changed. Weights lie apart, named by the digest of their bytes, so that equal
weights are stored once; so do the outcomes of scores. First write wins; what does not match its digest is set aside
and made again.
Beside them lies the progress of trainings that are under way: one file each, named by step, digest and size.
"""

import hashlib
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pyarrow.fs import FileInfo

from time_ray.core.errors import StoreError
from time_ray.store.entry_files import PAYLOADS, PROGRESS, DamagedError, Entry, entry_in, size_in, write_entry
from time_ray.store.files import Files
from time_ray.store.signing import Signer, signer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

log = logging.getLogger(__name__)

MOST_ENTRIES = 10_000  # in memory; a sweep of any size reads them all
_CHECKPOINT = re.compile(
    r"(?P<step>\d{12,18})-(?P<digest>[0-9a-f]{64})-(?P<size>\d{1,18})-\w+(-(?P<signature>[0-9a-f]{64}))?\.safetensors"
)


class Checkpoint(NamedTuple):
    """A step checkpoint by its file name, which holds the digest and the number of its bytes."""

    step: int
    digest: str
    size: int
    name: str
    signature: str | None

    def is_signed(self, signer: Signer | None, key: str) -> bool:
        """Whether it is of that training, by who has the key; without a key, whoever made it."""
        return signer is None or signer.has_signed(self.signature, *_signed(key, self.step, self.digest, self.size))


class Store:
    """Entries of several kinds, such as `weights` and `scores`, on one root that any number of processes share."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._entries: dict[tuple[str, str], Entry] = {}  # entries never change once they are whole

    @cached_property
    def signer(self) -> Signer | None:
        """Who signs what is written; None without a key. Raises UserError where the store has another (see signing)."""
        return signer_of(self.files)

    @property
    def mark(self) -> str | None:
        """What tells the key from others; None without one."""
        return None if self.signer is None else self.signer.mark

    def entry(self, kind: str, key: str) -> Entry | None:
        """The entry under a key, or None; found on disk if another process wrote it meanwhile."""
        if (kind, key) not in self._entries:
            found = next((entry for _, entry in self.entries(kind, key)), None)
            if found is None:
                return None
            if len(self._entries) >= MOST_ENTRIES:
                del self._entries[next(iter(self._entries))]
            self._entries[kind, key] = found
            return found
        return self._entries[kind, key]

    def keys(self, kind: str) -> frozenset[str]:
        """Keys that have an entry, by one listing; entries are not opened."""
        return frozenset(f.path.split("/")[-2] for f in self.files.list(kind, recursive=True) if is_whole(f))

    def entries(self, kind: str, key: str) -> Iterator[tuple[str, Entry]]:
        """Every whole entry under a key by its file name; the first stands. Damaged ones are set aside."""
        found = [file for file in self.files.list(kind, key[:2], key) if is_whole(file)]
        for file in sorted(found, key=lambda file: (file.mtime_ns, file.base_name)):
            place = (kind, key[:2], key, file.base_name)
            data = self.files.find(*place)
            if data is None:
                continue  # it went meanwhile
            try:
                yield file.base_name, entry_in(kind, key, data, self.signer)
            except DamagedError as error:
                log.warning("%s: damaged (%s); set aside, to be made again", self.files.path(*place), error)
                self.files.set_aside(*place)

    def record(self, kind: str, key: str, entry: Mapping[str, object]) -> Entry:
        """An entry stands under the key: this one, or the one that was there first.

        Args:
            kind: such as `weights` or `scores`; the folder under the root.
            key: what it is of, the content key of a recipe.
            entry: plain JSON values; ValueError for what JSON cannot hold, such as NaN.

        Returns:
            The entry that stands.

        Raises:
            StoreError: it cannot be written, or not be read back.

        """
        write_entry(self.files, kind, key, entry, self.signer)
        found = self.entry(kind, key)
        if found is None:
            raise StoreError(f"{self.files.path(kind, key[:2], key)}: was written and cannot be read back")
        return found

    def replace(self, kind: str, key: str, entry: Mapping[str, object]) -> None:
        """The entry stands under the key in place of any that was there: for what is measured anew, and no recipe.

        Raises:
            StoreError: it cannot be written.

        """
        older = [name for name, _ in self.entries(kind, key)]
        write_entry(self.files, kind, key, entry, self.signer)
        for name in older:
            self.files.delete(kind, key[:2], key, name)
        self._entries.pop((kind, key), None)

    def put(self, key: str, weights: "Mapping[str, Tensor]", about: Mapping[str, object]) -> Entry:
        """The weights lie in the store, and the entry written after them says so.

        Args:
            key: the content key of the weights' recipe.
            weights: tensors of any shape and type, by name, on the CPU.
            about: what else the entry says: the recipe, the seconds it took.

        Returns:
            The entry that stands: with `digest` (SHA-256), `bytes` and `payload` (the path) of the weights.

        Raises:
            StoreError: the storage cannot be read or written.

        """
        return self._put("weights", key, _as_bytes(weights), about)

    def put_scores(self, key: str, arrays: "Mapping[str, NDArray[Any]]", about: Mapping[str, object]) -> Entry:
        """As `put`, for scores and the arrays that they follow from."""
        from safetensors.numpy import save

        return self._put("scores", key, save(dict(arrays)), about)

    def _put(self, kind: str, key: str, data: bytes, about: Mapping[str, object]) -> Entry:
        digest = hashlib.sha256(data).hexdigest()
        payload = self._payload(digest, len(data)) or self._write_payload(digest, data)
        return self.record(kind, key, {**about, "digest": digest, "bytes": len(data), "payload": payload})

    def get(self, key: str) -> "dict[str, Tensor] | None":
        """The weights under a key, verified; None if they are not there or were damaged (and are now set aside)."""
        entry = self.entry("weights", key)
        if entry is None:
            return None
        data = self.payload("weights", key, entry)
        return None if data is None else _tensors(data)

    def arrays(self, key: str) -> "dict[str, NDArray[Any]] | None":
        """The arrays of scores, verified; None if there are none, or they were damaged (and are now set aside)."""
        entry = self.entry("scores", key)
        data = self.payload("scores", key, entry) if entry and "payload" in entry else None
        if data is None:
            return None
        from safetensors.numpy import load

        return load(data)

    def payload(self, kind: str, key: str, entry: Entry) -> bytes | None:
        """The safetensors bytes that an entry names, verified; None if damaged (and now set aside)."""
        path = str(entry["payload"])
        data = self.files.find(path)
        if data is not None and hashlib.sha256(data).hexdigest() == entry["digest"]:
            return data
        self.lose(kind, key, path)
        return None

    def lose(self, kind: str, key: str, payload: str) -> None:
        """The payload is set aside, if it is there at all, and no entry under the key names it.

        Raises:
            StoreError: the whole storage is gone, and nothing in it damaged.

        """
        self.files.check_there()
        log.warning("%s: %s %s are damaged or missing; set aside, to be made again", payload, kind, key)
        self.files.set_aside(payload)
        self._entries.pop((kind, key), None)
        for name, entry in self.entries(kind, key):
            if entry.get("payload") == payload:
                self.files.delete(kind, key[:2], key, name)

    def put_checkpoint(self, key: str, step: int, tensors: "Mapping[str, Tensor]") -> None:
        """The state of a training after so many steps lies in the store; what it supersedes is gone."""
        data = _as_bytes(tensors)
        older = [at for at in self.checkpoints(key) if at.step <= step]
        digest = hashlib.sha256(data).hexdigest()
        signed = f"-{self.signer.sign(*_signed(key, step, digest, len(data)))}" if self.signer else ""
        name = f"{step:012d}-{digest}-{len(data)}-{uuid.uuid4().hex}{signed}.safetensors"
        self.files.write(data, PROGRESS, key[:2], key, name)
        for at in older:
            self.files.delete(PROGRESS, key[:2], key, at.name)

    def newest_checkpoint(self, key: str) -> "tuple[int, dict[str, Tensor]] | None":
        """Steps done and the state after them, verified: the newest that is whole. Damaged ones are set aside."""
        for at in reversed(self.checkpoints(key)):
            data = self.files.find(PROGRESS, key[:2], key, at.name)
            if data is None:
                return self.newest_checkpoint(key)  # it was superseded just now
            if hashlib.sha256(data).hexdigest() == at.digest and at.is_signed(self.signer, key):
                return at.step, _tensors(data)
            log.warning("progress of %s after step %d is damaged; set aside, an earlier one counts", key, at.step)
            self.files.set_aside(PROGRESS, key[:2], key, at.name)
        return None

    def drop_checkpoints(self, key: str) -> None:
        """No progress of that training is kept."""
        for file in self.files.list(PROGRESS, key[:2], key):
            self.files.delete(PROGRESS, key[:2], key, file.base_name)

    def checkpoints(self, key: str) -> list[Checkpoint]:
        """What is kept of the progress of a training, earliest step first; not what is being written."""
        found = ((checkpoint(file.base_name), file.size) for file in self.files.list(PROGRESS, key[:2], key))
        return sorted(at for at, size in found if at is not None and size == at.size)

    def _payload(self, digest: str, size: int) -> str | None:
        """Where bytes of that digest lie already."""
        for file in self.files.list(PAYLOADS, digest[:2], digest):
            path = f"{PAYLOADS}/{digest[:2]}/{digest}/{file.base_name}"
            if file.size == size and self.files.digest(path) == digest:
                return path
        return None

    def _write_payload(self, digest: str, data: bytes) -> str:
        path = f"{PAYLOADS}/{digest[:2]}/{digest}/{uuid.uuid4().hex}.safetensors"
        self.files.write(data, path)
        return path


def is_whole(file: FileInfo) -> bool:
    """Whether an entry's file has the size that its name says: False for one that is being written, or never was."""
    return bool(size_in(file.base_name) == file.size)


def checkpoint(name: str) -> Checkpoint | None:
    """What the name of a step checkpoint says; None for a file that is none."""
    found = _CHECKPOINT.fullmatch(name)
    return found and Checkpoint(int(found["step"]), found["digest"], int(found["size"]), name, found["signature"])


def _signed(key: str, step: int, digest: str, size: int) -> tuple[str, ...]:
    """What the signature of a step checkpoint is of."""
    return "progress", key, str(step), digest, str(size)


def _as_bytes(tensors: "Mapping[str, Tensor]") -> bytes:
    from safetensors.torch import save  # imports torch, which only those who read or write weights need

    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _tensors(data: bytes) -> "dict[str, Tensor]":
    from safetensors.torch import load

    return load(data)
