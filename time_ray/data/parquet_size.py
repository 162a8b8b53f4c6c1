"""What columns of a Parquet file take once they are decoded: a few kilobytes of file may be gigabytes of rows."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from time_ray.core.quantities import size
from time_ray.limits import PARQUET_BYTES

DICTIONARIES = frozenset({"PLAIN_DICTIONARY", "RLE_DICTIONARY"})  # encodings in which a value is written once
TEXTS = frozenset({"BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"})


class _Leaf(NamedTuple):
    """A column of numbers or texts of a row group, by its path: `captions.list.element`."""

    path: str
    values: int
    written: int  # bytes, of a text that many values share once
    is_shared: bool

    @property
    def most(self) -> int:
        """What it can take at most, by what the footer says."""
        return self.values * self.written if self.is_shared else self.written


def check_decoded(source: Any, footer: pq.FileMetaData, group: int, columns: Sequence[str]) -> None:
    """These columns of a row group are small enough to be read. Raises ArrowInvalid if not, before they are decoded.

    `source` is the file, as pyarrow takes it; it is read only where the footer leaves room for doubt.
    """
    leaves = list(_leaves(footer, group, columns))
    if sum(leaf.most for leaf in leaves) <= PARQUET_BYTES:
        return
    shared = [leaf for leaf in leaves if leaf.is_shared]
    total = sum(leaf.written for leaf in leaves if not leaf.is_shared)
    for leaf in shared:
        total += _decoded_bytes(_undecoded(source, footer, group, leaf))
    if total > PARQUET_BYTES:
        raise pa.ArrowInvalid(f"row group {group} takes {size(total)} once decoded, more than {size(PARQUET_BYTES)}")


def rows_at_once(footer: pq.FileMetaData, group: int, columns: Sequence[str], most: int) -> int:
    """How many rows may be decoded together, by the footer: up to `most`, and fewer where one may be large."""
    written = sum(leaf.written for leaf in _leaves(footer, group, columns))
    return max(1, min(most, PARQUET_BYTES // max(1, written)))


def _leaves(footer: pq.FileMetaData, group: int, columns: Sequence[str]) -> Iterator[_Leaf]:
    found = footer.row_group(group)
    for number in range(found.num_columns):
        column = found.column(number)
        if column.path_in_schema.partition(".")[0] in columns:
            is_shared = column.physical_type in TEXTS and not DICTIONARIES.isdisjoint(column.encodings)
            yield _Leaf(column.path_in_schema, column.num_values, column.total_uncompressed_size, is_shared)


def _undecoded(source: Any, footer: pq.FileMetaData, group: int, leaf: _Leaf) -> pa.ChunkedArray:
    """The column with its dictionary as it is written."""
    file = pq.ParquetFile(source, metadata=footer, read_dictionary=[leaf.path])
    return file.read_row_group(group, columns=[leaf.path], use_threads=False).column(0)


def _decoded_bytes(column: pa.ChunkedArray) -> int:
    return sum(map(_array_bytes, column.chunks))


def _array_bytes(array: pa.Array) -> int:
    if pa.types.is_dictionary(array.type):
        lengths = pc.fill_null(pc.binary_length(array.dictionary), 0)
        return int(pc.sum(lengths.take(array.indices.drop_null()), min_count=0).as_py())
    if pa.types.is_struct(array.type):
        return sum(map(_array_bytes, array.flatten()))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _array_bytes(array.flatten())
    return int(array.nbytes)
