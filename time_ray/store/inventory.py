"""What lies on a storage root, and what of it nothing needs."""

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pyarrow.fs import FileInfo

from time_ray.plain_names import is_plain
from time_ray.store.entry_files import PAYLOADS, PROGRESS, DamagedError, Entry, entry_in, is_entry
from time_ray.store.files import DAMAGED, PROBE, Files
from time_ray.store.lease import LEASES, is_stale
from time_ray.store.signing import Signer, signer_of
from time_ray.store.stop_request import STOPS
from time_ray.store.store import checkpoint, is_whole

NO_ENTRIES = (PAYLOADS, PROGRESS, LEASES, STOPS, DAMAGED, "data", "pixels", "profiles")
OTHER = "other"
YOUNG_SECONDS = 3600.0
THREADS = 16  # reading many small files of an object store is waiting


class Garbage(NamedTuple):
    """A file that nothing needs, and why."""

    path: str  # relative to the root
    size: int
    mtime: float
    why: str


class Reachable(NamedTuple):
    """Keys that some experiments can still ask for."""

    weights: Container[str]
    scores: Container[str]

    def has(self, kind: str, key: str) -> bool:
        """Whether an entry must be kept; rates and notes of what was tracked always are."""
        return {"weights": key in self.weights, "scores": key in self.scores}.get(kind, True)


class KeyEntries(NamedTuple):
    """The entries under a key, of which the first counts, and the files that hold none: torn or damaged ones."""

    whole: tuple[tuple[FileInfo, Entry], ...]
    torn: tuple[FileInfo, ...]

    @property
    def entry(self) -> Entry | None:
        """The one that counts."""
        return self.whole[0][1] if self.whole else None


@dataclass(frozen=True)
class Inventory:
    """One look at a root."""

    files: Files
    found: Mapping[str, Sequence[FileInfo]]  # by kind (see kind_of)
    entries: Mapping[str, Mapping[str, KeyEntries]]  # by kind of entry, and by key
    signer: Signer | None

    @classmethod
    def of(cls, files: Files) -> "Inventory":
        """Everything under the root is listed, and every entry is read. Raises UserError as `signer_of` does."""
        return cls.trusting(files, signer_of(files))

    @classmethod
    def trusting(cls, files: Files, signer: Signer | None) -> "Inventory":
        """As `of`, where only what that signer has signed is an entry; None: whatever is whole."""
        found: dict[str, list[FileInfo]] = {}
        for file in files.list(recursive=True):
            found.setdefault(kind_of(relative(files, file)), []).append(file)
        entries: dict[str, dict[str, KeyEntries]] = {"weights": {}}
        with ThreadPoolExecutor(THREADS) as readers:
            for kind in found.keys() - {*NO_ENTRIES, OTHER}:
                groups = _by_key(found[kind])
                entries[kind] = dict(
                    zip(groups, readers.map(partial(_key_entries, files, signer, kind), groups.values()), strict=True)
                )
        return cls(files, found, entries, signer)

    def garbage(self, reachable: Reachable | None = None, *, young: bool = False) -> Iterator[Garbage]:
        """What nothing needs: what no entry names and, where it is told what is reachable, all else.

        Files of the last hour may belong to a writer that still runs: they are kept unless they are asked for.
        Entries come before payloads: whoever removes in this order leaves no entry without its payload.
        """

        def spared(file: FileInfo) -> bool:
            return not young and is_young(file.mtime_ns / 1e9)

        for file, why in self._unneeded(reachable, spared):
            if not spared(file) and self.files.holds(file.path):
                yield Garbage(relative(self.files, file), file.size, file.mtime_ns / 1e9, why)

    def _unneeded(
        self, reachable: Reachable | None, spared: Callable[[FileInfo], bool]
    ) -> Iterator[tuple[FileInfo, str]]:
        kept: set[str] = set()
        foreign = "damaged" if self.signer is None else "damaged, or not signed with this key"
        for kind, keys in self.entries.items():
            for key, at in keys.items():
                yield from ((file, foreign if is_whole(file) else "half-written") for file in at.torn)
                for place, (file, entry) in enumerate(at.whole):
                    needed = place == 0 and (reachable is None or reachable.has(kind, key))
                    if "payload" in entry and (needed or spared(file)):
                        kept.add(str(entry["payload"]))
                    if not needed:
                        yield file, "superseded" if place else "out of reach"
        yield from ((f, "unreferenced") for f in self.found.get(PAYLOADS, ()) if relative(self.files, f) not in kept)
        yield from self._unneeded_checkpoints(reachable)
        live = {file.path for file in self.found.get(LEASES, ()) if not is_stale(self.files, file)}
        yield from ((file, "stale") for file in self.found.get(LEASES, ()) if file.path not in live)
        leases = {path.rpartition("/")[2].removesuffix(".json") for path in live}
        yield from ((f, "stale") for f in self.found.get(STOPS, ()) if f.base_name.partition(".")[0] not in leases)
        yield from ((file, "damaged") for file in self.found.get(DAMAGED, ()))
        yield from ((f, "damaged") for f in self.found.get("data", ()) if f.base_name.startswith("damaged-"))
        yield from ((f, "probe") for f in self.found.get(OTHER, ()) if f.base_name.startswith(PROBE))

    def _unneeded_checkpoints(self, reachable: Reachable | None) -> Iterator[tuple[FileInfo, str]]:
        trained = {key for key, at in self.entries["weights"].items() if at.whole}
        for key, files in _by_key(self.found.get(PROGRESS, ())).items():
            yield from ((f, "half-written") for f in files if key not in trained and not _is_whole_checkpoint(f))
            if key in trained:
                yield from ((file, "its expert is stored") for file in files)
            elif reachable and not reachable.has("weights", key):
                yield from ((file, "out of reach") for file in files if _is_whole_checkpoint(file))


def rows(inventory: Inventory) -> list[dict[str, object]]:
    """A row for each kind: keys, files, bytes, and how many files are torn, superseded or unreferenced."""
    garbage: dict[str, list[Garbage]] = {}
    for item in inventory.garbage(young=True):
        garbage.setdefault(kind_of(item.path), []).append(item)
    return [
        {
            "kind": kind,
            "keys": len(_by_key(files)) if kind in (*inventory.entries, PAYLOADS, PROGRESS) else None,
            "files": len(files),
            "bytes": sum(file.size for file in files),
            "unneeded": sum(1 for item in garbage.get(kind, ())),
            "unneeded_bytes": sum(item.size for item in garbage.get(kind, ())),
            "why": ", ".join(sorted({item.why for item in garbage.get(kind, ())})),
        }
        for kind in dict.fromkeys(["weights", "scores", *sorted(inventory.entries), *NO_ENTRIES, OTHER])
        if (files := inventory.found.get(kind))
    ]


def kind_of(path: str) -> str:
    """The kind of a file, by its path below the root: the first part of it, or `other` where it is none of ours."""
    kind, *rest = path.split("/")
    if kind in (PAYLOADS, PROGRESS):
        is_ours = len(rest) == 3 and all(map(is_plain, rest))
        return kind if is_ours and (kind == PAYLOADS or checkpoint(rest[2])) else OTHER
    return kind if kind in NO_ENTRIES or is_entry(kind, rest) else OTHER


def is_young(mtime: float) -> bool:
    """Whether a file may belong to a writer that is still running."""
    return time.time() - mtime < YOUNG_SECONDS


def relative(files: Files, file: FileInfo) -> str:
    """The path of a file below the root."""
    return str(file.path)[len(files.path("")) :]


def _is_whole_checkpoint(file: FileInfo) -> bool:
    at = checkpoint(file.base_name)
    return at is not None and bool(at.size == file.size)


def _by_key(files: Sequence[FileInfo]) -> dict[str, list[FileInfo]]:
    found: dict[str, list[FileInfo]] = {}
    for file in files:
        found.setdefault(file.path.split("/")[-2], []).append(file)
    return found


def _key_entries(files: Files, signer: Signer | None, kind: str, group: Sequence[FileInfo]) -> KeyEntries:
    whole: list[tuple[FileInfo, Entry]] = []
    torn: list[FileInfo] = []
    for file in sorted(group, key=lambda file: (file.mtime_ns, file.base_name)):
        data = files.find(relative(files, file)) if is_whole(file) else b""
        if data is None:
            continue  # it went meanwhile
        try:
            whole.append((file, entry_in(kind, file.path.split("/")[-2], data, signer)))
        except DamagedError:
            torn.append(file)
    return KeyEntries(tuple(whole), tuple(torn))
