"""Signing a store that never was: what is whole there is trusted once, from then on only what the key has signed."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pyarrow.fs import FileInfo

from time_ray.core.errors import UserError
from time_ray.store.entry_files import Entry, write_entry
from time_ray.store.files import Files
from time_ray.store.inventory import Inventory, relative
from time_ray.store.lease import CLEANING, lease
from time_ray.store.signing import KEY, Signer, mark_signed, marks, own_signer, wrong_key


class Signed(NamedTuple):
    """An entry that was looked at, and why it is not signed, if it is not."""

    kind: str
    key: str
    fault: str | None


def sign(files: Files) -> Iterator[Signed]:
    """Every entry of the storage, signed by the time it is told. The store is signed once all are told.

    The entry that counts under a key is written again with its signature, and what was there before is removed. Killed,
    it goes on where it was. Of a store that this key has signed nothing is told: what came without a signature since
    then is not trusted. Step checkpoints are not signed: a training under way begins its task again.

    Raises:
        UserError: there is no key, the store is signed with another one, or a sweep runs there.

    """
    signer = own_signer()
    if signer is None:
        raise UserError(f"{KEY}: is not set; make one by `openssl rand -hex 32`, and keep it where others cannot read")
    found = marks(files)
    if found and signer.mark not in found:
        raise wrong_key(files)
    if not found:
        with lease(files, CLEANING):
            yield from _sign_all(files, signer)
            mark_signed(files, signer)


def _sign_all(files: Files, signer: Signer) -> Iterator[Signed]:
    trusted = Inventory.trusting(files, signer).entries
    for kind, keys in Inventory.trusting(files, None).entries.items():
        for key, at in keys.items():
            if at.entry is None:
                continue
            fault = _payload_fault(files, at.entry)
            if fault is None:
                _sign_key(files, signer, kind, key, at.whole, trusted[kind][key].whole)
            yield Signed(kind, key, fault)


def _payload_fault(files: Files, entry: Entry) -> str | None:
    if "payload" not in entry:
        return None
    data = files.find(str(entry["payload"]))
    is_whole = data is not None and hashlib.sha256(data).hexdigest() == entry["digest"]
    return None if is_whole else "what it names is damaged or missing"


_Entries = Sequence[tuple[FileInfo, Entry]]


def _sign_key(files: Files, signer: Signer, kind: str, key: str, whole: _Entries, trusted: _Entries) -> None:
    """The first of the whole entries stands, signed; what is not signed is gone."""
    entry = whole[0][1]
    if all(entry != other for _, other in trusted):
        write_entry(files, kind, key, entry, signer)
    kept = {file.path for file, _ in trusted}
    for file, _ in whole:
        if file.path not in kept:
            files.delete(relative(files, file))
