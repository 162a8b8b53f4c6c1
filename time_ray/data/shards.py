"""Shards: Parquet files of image-text rows, written row group by row group, and the digests of what is in them."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from time_ray.data.decoding import DECODING, is_plain

GROUP_BYTES = 256 * 1024  # a random access reads one row group: small ones waste little
GROUP_ROWS = 256
DIGEST_BYTES = 32  # of one row
SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("captions", pa.list_(pa.string())),
        ("label", pa.int32()),
        ("key", pa.string()),
    ]
)
COMPRESSION = {"image": "none", "captions.list.element": "zstd", "label": "zstd", "key": "zstd"}


class Row(NamedTuple):
    """One sample: an encoded image, its captions, its class (-1: none), and where it came from."""

    image: bytes
    captions: tuple[str, ...]
    label: int
    key: str


def row_digest(row: Row) -> bytes:
    """Names what a row holds (its key aside), and what its image is decoded to: 32 bytes."""
    captions = [caption.encode() for caption in row.captions]
    kind = b"row" if is_plain(row.image) else f"row decoded by {DECODING}".encode()
    return hashlib.sha256(framed(kind, row.image, str(row.label).encode(), *captions)).digest()


def framed(*parts: bytes) -> bytes:
    """The parts in a form that no other parts share."""
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(8, "little"), part))


def write_shard(stream: pa.NativeFile, rows: Iterator[Row]) -> bytes:
    """The stream holds the rows as Parquet; returns their digests, joined. One row group at a time is in memory."""
    digests = bytearray()
    with pq.ParquetWriter(
        stream,
        SCHEMA,
        compression=COMPRESSION,
        use_dictionary=["captions.list.element"],
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        while group := _next_group(rows):
            writer.write_table(pa.table([list(column) for column in zip(*group, strict=True)], schema=SCHEMA))
            digests += b"".join(map(row_digest, group))
    return bytes(digests)


def _next_group(rows: Iterator[Row]) -> list[Row]:
    group: list[Row] = []
    size = 0
    for row in islice(rows, GROUP_ROWS):
        group.append(row)
        size += len(row.image)
        if size >= GROUP_BYTES:
            break
    return group
