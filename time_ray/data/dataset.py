"""Datasets on disk: Parquet shards of image-text rows beside a card that describes them.

Any Parquet reader can read the shards: `image` (bytes as found), `captions` (strings), `label` (-1: none), `key`.
The card is sealed and names the footer of every shard by its digest: what is read is what was written.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.fs
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError

from time_ray.core.errors import CellError, UserError
from time_ray.core.scoring import Template
from time_ray.core.section import Section
from time_ray.data.decoding import DECODING
from time_ray.data.shard_reader import Shard, footer_seal, set_aside
from time_ray.data.shards import DIGEST_BYTES, SCHEMA, Row, framed, write_shard
from time_ray.limits import JSON_BYTES, parse_json
from time_ray.plain_names import is_plain

CARD = "card.json"
KEPT_CAPTION_BYTES = 256 * 1024**2  # captions of a split are kept in memory up to this size

Kind = Literal["classification", "captions", "retrieval"]


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"{name!r} is no name of a file in the dataset's folder")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]


class SplitInfo(Section):
    """The files of a split, in order, and how many rows they hold together."""

    shards: tuple[PlainName, ...]
    rows: Annotated[int, Field(ge=0)]
    footers: Annotated[tuple[str, ...], Field(description="SHA-256 of every shard's footer")] = ()


class Card(Section):
    """What a dataset is. `digest` names its content, whatever the encoding of the files.

    A retrieval set may have classes, too: they order a stream. `source` says what an import was made from.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    templates: Annotated[tuple[Template, ...], Field(description="class prompts; {} is the class name")]
    splits: dict[PlainName, SplitInfo]
    digest: Digest
    source: str = ""
    decoding: Annotated[int, Field(description="the rules of decoding that `digest` knows")] = 1
    seal: Annotated[str, Field(description="SHA-256 of all other fields")] = ""


class Split:
    """The rows of one split, read where they are asked for; captions and labels are kept once read."""

    def __init__(self, where: str, name: str, shards: Sequence[Shard], rows: int) -> None:
        self.name = name
        self.where = where
        self.shards = tuple(shards)
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The class of every row; -1 where a row has none."""
        return np.array(self._column("label"), dtype=np.int32)

    def rows_of(self, label: int) -> NDArray[np.int64]:
        """The rows of that class, in order."""
        order, labels = self._by_label
        start, stop = np.searchsorted(labels, [label, label + 1])
        return order[start:stop]

    def rows(self, shard: int | None = None) -> Iterator[Row]:
        """Every row, or every one of a shard, in order; one row group at a time is in memory."""
        for file in self.shards if shard is None else [self.shards[shard]]:
            for table in file.tables(SCHEMA.names):
                for image, captions, label, key in zip(*(column.to_pylist() for column in table.columns), strict=True):
                    yield Row(image, tuple(captions), label, key)

    def images(self, indices: Sequence[int] | NDArray[np.int64]) -> list[bytes]:
        """The encoded images of those rows, in that order."""
        return self._take("image", indices)

    def captions(self, indices: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, ...]]:
        """All captions of those rows, in that order."""
        if self._keeps_captions:
            return [tuple(self._captions[int(index)].as_py()) for index in indices]
        return [tuple(captions) for captions in self._take("captions", indices)]

    def keys(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Where those rows came from, in that order."""
        return self._take("key", indices)

    def _take(self, column: str, indices: Sequence[int] | NDArray[np.int64]) -> list[Any]:
        wanted = np.asarray(indices, dtype=np.int64)
        found: list[Any] = [None] * len(wanted)
        group_of = np.searchsorted(self._groups.start, wanted, side="right") - 1
        for shard in np.unique(self._groups.shard[group_of]):
            groups = np.unique(group_of[self._groups.shard[group_of] == shard])
            tables = self.shards[shard].tables([column], self._groups.local[groups].tolist())
            for group, table in zip(groups, tables, strict=True):
                values = table[0]
                for place in np.flatnonzero(group_of == group):
                    found[place] = values[int(wanted[place] - self._groups.start[group])].as_py()
        return found

    @cached_property
    def _by_label(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        order = np.argsort(self.labels, kind="stable")
        return order, self.labels[order]

    @cached_property
    def _keeps_captions(self) -> bool:
        column = SCHEMA.names.index("captions")
        sizes = (
            shard.footer.row_group(group).column(column).total_uncompressed_size
            for shard in self.shards
            for group in range(shard.footer.num_row_groups)
        )
        return bool(sum(sizes) <= KEPT_CAPTION_BYTES)

    @cached_property
    def _captions(self) -> pa.ListArray:
        return self._column("captions")

    def _column(self, name: str) -> pa.Array:
        chunks = [chunk for shard in self.shards for table in shard.tables([name]) for chunk in table[0].chunks]
        column = pa.chunked_array(chunks, SCHEMA.field(name).type).combine_chunks()
        if len(column) != self._rows:
            counts = f"{self._rows} rows of {self.name} on its card, {len(column)} in its shards"
            raise CellError(f"{self.where}: {counts}; import it again")
        return column

    @cached_property
    def _groups(self) -> "_Groups":
        footers = [shard.footer for shard in self.shards]
        places = [(shard, local) for shard, file in enumerate(footers) for local in range(file.num_row_groups)]
        rows = [footers[shard].row_group(local).num_rows for shard, local in places]
        shard, local = np.array(places, dtype=np.int64).reshape(-1, 2).T
        return _Groups(shard, local, np.cumsum([0, *rows[:-1]], dtype=np.int64))


class _Groups(NamedTuple):
    """Every row group of a split: its shard, its number there, and its first row."""

    shard: NDArray[np.int64]
    local: NDArray[np.int64]
    start: NDArray[np.int64]


class Dataset:
    """A dataset that is whole on disk."""

    def __init__(self, card: Card, splits: Mapping[str, Split]) -> None:
        self.card = card
        self._splits = splits

    @classmethod
    def open(cls, folder: str | Path, filesystem: pa.fs.FileSystem | None = None, *, is_copy: bool = False) -> Self:
        """The dataset of that folder. Raises UserError if it is missing, unfinished or lacks files.

        Damaged shards of a copy, which can be made again, are set aside where they are read.
        """
        filesystem, folder = _place(folder, filesystem)
        card = _read_card(folder, filesystem)
        paths = [f"{folder}/{shard}" for info in card.splits.values() for shard in info.shards]
        absent = (info.path for info in filesystem.get_file_info(paths) if not info.is_file)
        UserError.unless_none(f"{path}: missing, though {CARD} lists it; import the dataset again" for path in absent)
        splits = {}
        for name, info in card.splits.items():
            seals = info.footers or ("",) * len(info.shards)
            shards = [
                Shard(filesystem, f"{folder}/{shard}", seal, is_copy=is_copy)
                for shard, seal in zip(info.shards, seals, strict=True)
            ]
            splits[name] = Split(f"{folder} {name}", name, shards, info.rows)
        return cls(card, splits)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The files of all splits."""
        return tuple(shard for split in self._splits.values() for shard in split.shards)

    def split(self, name: str) -> Split:
        """The split of that name. Raises UserError if the dataset has none."""
        if name not in self._splits:
            has = ", ".join(self._splits) or "none"
            msg = f"dataset {self.card.name}: no split {name}; it has {has}"
            raise UserError(msg)
        return self._splits[name]


@dataclass(frozen=True)
class Data:
    """The datasets of an experiment: learned from, only evaluated on, and the pretraining pool for replay."""

    adaptation: tuple[Dataset, ...]
    evaluation: tuple[Dataset, ...]
    pretraining: Dataset | None


def write_dataset(
    folder: str | Path,
    *,
    name: str,
    kind: Kind,
    classes: Sequence[str],
    templates: Sequence[str],
    splits: Mapping[str, Iterable[Row]],
    filesystem: pa.fs.FileSystem | None = None,
    rows_per_shard: int = 4096,
) -> Card:
    """Write the rows, then the card: the dataset is whole once its card is there.

    Shards get names of their own in every call, so two writers of one folder never touch the same file.

    Args:
        folder: it may be there already.
        name: what results call the dataset.
        kind: `classification`, `captions` (a pool) or `retrieval`.
        classes: in the order of the labels.
        templates: class prompts; {} is the class name.
        splits: rows by split, taken one at a time.
        filesystem: where the folder lies; None: on this machine.
        rows_per_shard: of one file, at most.

    Returns:
        The card, sealed, with the digest of the content.

    """
    filesystem, folder = _place(folder, filesystem)
    filesystem.create_dir(folder, recursive=True)
    infos, digests = {}, {}
    for split, rows in splits.items():
        stem = f"{folder}/{split}-{uuid4().hex[:8]}"
        infos[split], digests[split] = _write_split(stem, iter(rows), filesystem, rows_per_shard)
    card = Card(
        name=name,
        kind=kind,
        classes=tuple(classes),
        templates=tuple(templates),
        splits=infos,
        digest=content_digest(kind, classes, templates, digests),
    )
    return write_card(folder, filesystem, card)


def write_card(folder: str, filesystem: pa.fs.FileSystem, card: Card) -> Card:
    """The card lies in the folder, sealed, with the footers of its shards: the dataset is whole."""
    card = seal_card(folder, filesystem, card)
    with filesystem.open_output_stream(f"{folder}/{CARD}") as stream:
        stream.write(card.model_dump_json(indent=2).encode())
    return card


def seal_card(folder: str, filesystem: pa.fs.FileSystem, card: Card) -> Card:
    """The card with the digests of its shards' footers, and with its own."""
    splits = {}
    for name, info in card.splits.items():
        footers = tuple(footer_seal(filesystem, f"{folder}/{shard}") for shard in info.shards)
        splits[name] = info.model_copy(update={"footers": footers})
    card = card.model_copy(update={"splits": splits, "decoding": DECODING})
    return card.model_copy(update={"seal": _seal(card.model_dump(mode="json"))})


def _seal(fields: Mapping[str, Any]) -> str:
    """The digest of a card's fields as written, but for the seal itself."""
    others = {name: value for name, value in fields.items() if name != "seal"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def content_digest(
    kind: Kind, classes: Sequence[str], templates: Sequence[str], digests: Mapping[str, Iterable[bytes]]
) -> str:
    """The digest of a dataset whose splits hold rows of those digests, in order, in pieces of any size."""
    digest = hashlib.sha256()
    for split, pieces in digests.items():
        digest.update(framed(b"split", split.encode()))
        for piece in pieces:
            digest.update(piece)
    for text in (kind, *classes, "\0", *templates):
        digest.update(framed(text.encode()))
    return digest.hexdigest()


def verify_datasets(
    cards: Iterable[pa.fs.FileInfo], filesystem: pa.fs.FileSystem
) -> Iterator[tuple[str, int, str | None]]:
    """Every card and shard of the datasets that are copies: path, bytes, and what is wrong.

    What is damaged is set aside by then, to be made again.
    """
    for card in cards:
        try:
            dataset = Dataset.open(card.path.rpartition("/")[0], filesystem, is_copy=True)
        except UserError as error:
            set_aside(filesystem, card.path)
            yield card.path, card.size, error.faults[0]
            continue
        yield card.path, card.size, None
        is_whole = True
        for shard in dataset.shards:
            try:
                yield shard.path, shard.verify(), None
            except CellError as error:
                is_whole = False
                yield shard.path, 0, str(error)
        if not is_whole:
            set_aside(filesystem, card.path)  # it names what is no longer there


def _write_split(
    stem: str, rows: Iterator[Row], filesystem: pa.fs.FileSystem, rows_per_shard: int
) -> tuple[SplitInfo, list[bytes]]:
    shards: list[str] = []
    digests: list[bytes] = []
    for first in rows:
        path = f"{stem}-{len(shards):05d}.parquet"
        with filesystem.open_output_stream(path) as stream:
            digests.append(write_shard(stream, chain([first], islice(rows, rows_per_shard - 1))))
        shards.append(path.rpartition("/")[2])
    return SplitInfo(shards=tuple(shards), rows=sum(map(len, digests)) // DIGEST_BYTES), digests


def _place(folder: str | Path, filesystem: pa.fs.FileSystem | None) -> tuple[pa.fs.FileSystem, str]:
    if filesystem is None:
        return pa.fs.LocalFileSystem(use_mmap=True), os.path.realpath(folder)
    return filesystem, str(folder).rstrip("/")


def _read_card(folder: str, filesystem: pa.fs.FileSystem) -> Card:
    path = f"{folder}/{CARD}"
    try:
        with filesystem.open_input_stream(path) as stream:
            text = stream.read(JSON_BYTES + 1)
        fields = parse_json(text)
        card = Card.model_validate_json(text)
    except FileNotFoundError as error:
        msg = f"{folder}: no dataset here ({CARD} is missing); import one, or correct the path"
        raise UserError(msg) from error
    except ValidationError as error:
        places = ((".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors())
        faults = (": ".join(filter(None, (path, *place))) for place in places)
        raise UserError(*(f"{fault}; import the dataset again" for fault in faults)) from error
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error}); import the dataset again") from error
    if card.seal and card.seal != _seal(fields):
        msg = f"{path}: is not as it was written; import the dataset again"
        raise UserError(msg)
    return card
