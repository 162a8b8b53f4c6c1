"""Reads a store from end to end: every byte is compared with its digest, and what does not match is set aside."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from pyarrow.fs import FileInfo

from time_ray.core.errors import StoreError
from time_ray.store.entry_files import PAYLOADS, PROGRESS, DamagedError, entry_in
from time_ray.store.files import Files
from time_ray.store.inventory import THREADS, Inventory, is_young, relative
from time_ray.store.lease import LEASES, holders
from time_ray.store.sealed import unsealed
from time_ray.store.signing import Signer
from time_ray.store.store import Store, checkpoint, is_whole


class Checked(NamedTuple):
    """A file that was read, and what is wrong with it, if anything is."""

    kind: str
    path: str
    size: int
    fault: str | None


def verify(files: Files) -> Iterator[Checked]:
    """Every file of the store, read and compared. What is damaged is set aside by then, to be made again.

    While a sweep runs, a young file that is not whole may be one that is being written, and is left alone.
    """
    inventory = Inventory.of(files)
    busy = bool(holders(files))
    store, keys = Store(files), _keys_by_payload(inventory)
    for kind, file, fault in _faults(inventory):
        path = relative(files, file)
        if fault and busy and is_young(file.mtime_ns / 1e9):
            yield Checked(kind, path, file.size, None)
            continue
        if fault:
            files.set_aside(path)
            for named_by, key in keys.get(path, ()):
                store.lose(named_by, key, path)
        yield Checked(kind, path, file.size, fault)
    there = {relative(files, file) for file in inventory.found.get(PAYLOADS, ())}
    for path in keys.keys() - there:
        for named_by, key in keys[path]:
            store.lose(named_by, key, path)
        yield Checked(PAYLOADS, path, 0, "missing")


def _faults(inventory: Inventory) -> Iterator[tuple[str, FileInfo, str | None]]:
    """Every file with what is wrong with it; several are read at a time, and few wait to be taken."""
    kinds = (*inventory.entries, PAYLOADS, PROGRESS, LEASES)
    waiting: deque[tuple[str, FileInfo, Future[str | None]]] = deque()
    with ThreadPoolExecutor(THREADS) as readers:
        for kind in kinds:
            for file in inventory.found.get(kind, ()):
                waiting.append((kind, file, readers.submit(_fault, inventory.files, inventory.signer, kind, file)))
                if len(waiting) > THREADS:
                    kind_of, oldest, fault = waiting.popleft()
                    yield kind_of, oldest, fault.result()
        for kind, file, fault in waiting:
            yield kind, file, fault.result()


def _fault(files: Files, signer: Signer | None, kind: str, file: FileInfo) -> str | None:
    path = relative(files, file)
    key = path.split("/")[-2]
    if kind == PAYLOADS:
        return _unlike(files, path, key)
    if kind == PROGRESS:
        at = checkpoint(file.base_name)
        return _unlike(files, path, at.digest) if at and at.is_signed(signer, key) else "is not signed"
    if kind != LEASES and not is_whole(file):
        return "half-written"
    data = files.find(path)
    return None if data is None else _entry_fault(kind, key, data, signer)


def _entry_fault(kind: str, key: str, data: bytes, signer: Signer | None) -> str | None:
    if kind == LEASES:  # they say who is at work, not what was found
        return "its seal does not match" if unsealed(data) is None else None
    try:
        entry_in(kind, key, data, signer)
    except DamagedError as error:
        return str(error)
    return None


def _unlike(files: Files, path: str, digest: str) -> str | None:
    try:
        return None if files.digest(path) == digest else "its digest does not match"
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None  # it went meanwhile
        raise


def _keys_by_payload(inventory: Inventory) -> dict[str, list[tuple[str, str]]]:
    """By payload the entries that name it: their kind and key."""
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, keys in inventory.entries.items():
        for key, at in keys.items():
            for _, entry in at.whole:
                if "payload" in entry:
                    found.setdefault(str(entry["payload"]), []).append((kind, key))
    return found
