"""Weights and scores under their recipe's key.

An entry is a small JSON file whose last line is the digest of what stands before it: a whole entry says so
itself, a half-written one does not count. Weights lie apart, named by the digest of their bytes, so that equal
weights are stored once. First write wins; what does not match its digest is set aside and made again.
Beside them lies the progress of trainings that are under way: one file each, with its step and digest in its name.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from typing import NamedTuple

import safetensors.torch
from torch import Tensor

from time_ray.core.errors import StoreError
from time_ray.store.files import Files

log = logging.getLogger(__name__)

Entry = dict[str, object]


class _Progress(NamedTuple):
    """A step checkpoint by its file name, which holds the digest of its bytes: one file, whole or of no use."""

    step: int
    digest: str
    name: str


class Store:
    """Entries of two kinds, `weights` and `scores`, on one root that any number of processes share."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._entries: dict[tuple[str, str], Entry] = {}  # entries never change once they are whole

    def entry(self, kind: str, key: str) -> Entry | None:
        """The entry under a key, or None; found on disk if another process wrote it meanwhile."""
        if (kind, key) not in self._entries:
            found = self._find(kind, key)
            if found is None:
                return None
            self._entries[kind, key] = found
        return self._entries[kind, key]

    def keys(self, kind: str) -> frozenset[str]:
        """Keys that have an entry, by one listing; entries are not opened."""
        return frozenset(f.path.split("/")[-2] for f in self.files.list(kind, recursive=True) if f.size)

    def record(self, kind: str, key: str, entry: Mapping[str, object]) -> Entry:
        """An entry stands under the key: this one, or the one that was there first."""
        body = json.dumps(entry, indent=1, sort_keys=True, allow_nan=False)
        seal = hashlib.sha256(body.encode()).hexdigest()
        self.files.write(f"{body}\n{seal}\n".encode(), kind, key[:2], key, f"{uuid.uuid4().hex}.json")
        found = self.entry(kind, key)
        if found is None:
            raise StoreError(f"{self.files.path(kind, key[:2], key)}: was written and cannot be read back")
        return found

    def put(self, key: str, weights: Mapping[str, Tensor], about: Mapping[str, object]) -> Entry:
        """The weights lie in the store, and the entry written after them says so."""
        data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
        digest = hashlib.sha256(data).hexdigest()
        payload = self._payload(digest, len(data)) or self._write_payload(digest, data)
        return self.record("weights", key, {**about, "digest": digest, "bytes": len(data), "payload": payload})

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The weights under a key, verified; None if they are not there or were damaged (and are now set aside)."""
        entry = self.entry("weights", key)
        if entry is None:
            return None
        data = self.payload(key, entry)
        return None if data is None else safetensors.torch.load(data)

    def payload(self, key: str, entry: Entry) -> bytes | None:
        """The safetensors bytes that an entry names, verified; None if damaged (and now set aside)."""
        path = str(entry["payload"])
        try:
            data = self.files.read(path)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise  # what cannot be read just now may be whole
        else:
            if hashlib.sha256(data).hexdigest() == entry["digest"]:
                return data
            self.files.set_aside(path)
        log.warning("%s: weights %s are damaged or missing; set aside, to be made again", path, key)
        self.forget("weights", key)
        return None

    def put_progress(self, key: str, step: int, tensors: Mapping[str, Tensor]) -> None:
        """The state of a training after so many steps lies in the store; what it supersedes is gone."""
        data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
        older = [at for at in self._progress_files(key) if at.step <= step]
        name = f"{step:012d}-{hashlib.sha256(data).hexdigest()}-{uuid.uuid4().hex}.safetensors"
        self.files.write(data, "progress", key[:2], key, name)
        for at in older:
            self.files.delete("progress", key[:2], key, at.name)

    def progress(self, key: str) -> tuple[int, dict[str, Tensor]] | None:
        """Steps done and the state after them, verified: the newest that is whole. Damaged ones are set aside."""
        for at in reversed(self._progress_files(key)):
            try:
                data = self.files.read("progress", key[:2], key, at.name)
            except StoreError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise  # what cannot be read just now may be whole
                continue  # another process was faster
            if hashlib.sha256(data).hexdigest() == at.digest:
                return at.step, safetensors.torch.load(data)
            log.warning("progress of %s after step %d is damaged; set aside, an earlier one counts", key, at.step)
            self.files.set_aside("progress", key[:2], key, at.name)
        return None

    def drop_progress(self, key: str) -> None:
        """No progress of that training is kept."""
        for at in self._progress_files(key):
            self.files.delete("progress", key[:2], key, at.name)

    def _progress_files(self, key: str) -> "list[_Progress]":
        """Earliest step first."""
        names = [file.base_name for file in self.files.list("progress", key[:2], key)]
        return sorted(_Progress(int(name[:12]), name.split("-")[1], name) for name in names)

    def forget(self, kind: str, key: str) -> None:
        """No entry stands under the key."""
        self._entries.pop((kind, key), None)
        for file in self.files.list(kind, key[:2], key):
            self.files.delete(kind, key[:2], key, file.base_name)

    def _find(self, kind: str, key: str) -> Entry | None:
        for file in sorted(self.files.list(kind, key[:2], key), key=lambda file: file.mtime_ns):  # the first stands
            body, _, seal = (
                self.files.read(kind, key[:2], key, file.base_name)
                .decode(errors="replace")
                .rstrip("\n")
                .rpartition("\n")
            )
            if hashlib.sha256(body.encode()).hexdigest() == seal:
                entry: Entry = json.loads(body)
                return entry
        return None

    def _payload(self, digest: str, size: int) -> str | None:
        whole = [f.base_name for f in self.files.list("payloads", digest[:2], digest) if f.size == size]
        return f"payloads/{digest[:2]}/{digest}/{whole[0]}" if whole else None

    def _write_payload(self, digest: str, data: bytes) -> str:
        path = f"payloads/{digest[:2]}/{digest}/{uuid.uuid4().hex}.safetensors"
        self.files.write(data, path)
        return path
