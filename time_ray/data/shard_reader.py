"""Shards as they are read: no changed byte goes unnoticed. Pages have checksums, and a seal names the footer."""

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from time_ray.core.errors import CellError
from time_ray.data.parquet_size import check_decoded
from time_ray.data.shards import SCHEMA
from time_ray.whole_files import move_file

log = logging.getLogger(__name__)

END = b"PAR1"
FAILURES = (pa.ArrowException, OSError, UnicodeDecodeError)  # the last: names in the footer
PAUSES = (1.0, 5.0, 15.0, 30.0)  # seconds before bytes that did not come over a network are asked for again


class Shard:
    """One Parquet file of a dataset. A `copy` can be made again, so it is set aside if it is damaged.

    Raises CellError where the file cannot be read or is not as it was written; an empty seal accepts any footer.
    """

    def __init__(self, filesystem: pa.fs.FileSystem, path: str, seal: str = "", *, is_copy: bool = False) -> None:
        self.path = path
        self._filesystem = filesystem
        self._seal = seal
        self._is_copy = is_copy

    @cached_property
    def footer(self) -> pq.FileMetaData:
        """Row groups, and where their columns lie. Raises CellError as the class says."""
        try:
            with self._filesystem.open_input_file(self.path) as source:
                return self._read_footer(source)
        except FAILURES:
            source = self._in_memory()
        try:
            return self._read_footer(source)
        except FAILURES as error:
            raise self._damaged(error) from error

    def tables(self, columns: Sequence[str], groups: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """Columns of row groups, group by group: one is in memory at a time.

        Args:
            columns: names in `shards.SCHEMA`.
            groups: numbers of row groups; None: all of them.

        Raises:
            CellError: as the class says.

        """
        left = deque(range(self.footer.num_row_groups) if groups is None else groups)
        try:
            with self._filesystem.open_input_file(self.path) as source:
                yield from self._read_groups(source, columns, left)
                return
        except FAILURES:
            source = self._in_memory()
        try:
            yield from self._read_groups(source, columns, left)
        except FAILURES as error:
            raise self._damaged(error) from error

    def verify(self) -> int:
        """Every page was read and compared; the bytes of the file."""
        for _ in self.tables(SCHEMA.names):
            pass
        return int(self._filesystem.get_file_info(self.path).size)

    def _checked(self, table: pa.Table, group: int) -> pa.Table:
        """The table, if it is all there and its texts are some: the count of values is no part of a page's checksum."""
        table.validate(full=True)
        for name in table.column_names:
            if _num_values(table[name]) != self.footer.row_group(group).column(SCHEMA.get_field_index(name)).num_values:
                raise pa.ArrowInvalid(f"a page of {name} lacks values")
        return table

    def _read_footer(self, source: pa.NativeFile) -> pq.FileMetaData:
        tail = _tail(source)
        if self._seal and hashlib.sha256(tail).hexdigest() != self._seal:
            raise pa.ArrowInvalid("its footer is not the one that the card names")
        footer = pq.read_metadata(pa.BufferReader(END + tail))
        if not (found := footer.schema.to_arrow_schema()).equals(SCHEMA):
            raise pa.ArrowInvalid(f"its columns are {', '.join(found.names)}, not those of a dataset")
        return footer

    def _read_groups(self, source: pa.NativeFile, columns: Sequence[str], left: deque[int]) -> Iterator[pa.Table]:
        """The groups that are left, of which each is gone from there once it was read."""
        file = pq.ParquetFile(source, metadata=self.footer, page_checksum_verification=True)
        while left:
            check_decoded(source, self.footer, left[0], columns)
            table = self._checked(file.read_row_group(left[0], columns=columns, use_threads=False), left[0])
            left.popleft()
            yield table

    def _in_memory(self) -> pa.NativeFile:
        """All bytes of a file that could not be read: what is wrong with them now is not the way they came.

        Over a network they are waited for. Raises CellError: they cannot be had.
        """
        pauses = iter(() if isinstance(self._filesystem, pa.fs.LocalFileSystem) else PAUSES)
        while True:
            try:
                with self._filesystem.open_input_stream(self.path) as stream:
                    return pa.BufferReader(stream.read())
            except FileNotFoundError as error:
                raise self._damaged(error) from error
            except FAILURES as error:
                if (pause := next(pauses, None)) is None:
                    again = "the same command goes on once it can"
                    raise CellError(f"{self.path}: cannot be read ({_first_line(error)}); {again}") from error
            time.sleep(pause)

    def _damaged(self, error: Exception) -> CellError:
        """The error to raise; what can be made again is out of the way."""
        why = _first_line(error)
        if not self._is_copy:
            return CellError(f"{self.path}: damaged ({why}); import the dataset again")
        set_aside(self._filesystem, self.path)
        return CellError(f"{self.path}: damaged ({why}) and set aside; the same command makes it again")


def footer_seal(filesystem: pa.fs.FileSystem, path: str) -> str:
    """The digest of a shard's footer."""
    with filesystem.open_input_file(path) as source:
        return hashlib.sha256(_tail(source)).hexdigest()


def set_aside(filesystem: pa.fs.FileSystem, path: str) -> None:
    """The file is no longer where it is read; it stays beside, for people to look at."""
    folder, _, name = path.rpartition("/")
    if isinstance(filesystem, pa.fs.LocalFileSystem) and os.path.islink(folder):  # noqa: PTH114 it is no Path
        log.warning("%s is damaged, and lies outside the storage by a link; left as it is", path)
        return
    target = f"{folder}/damaged-{uuid4().hex[:8]}-{name}"
    try:
        move_file(filesystem, path, target)
    except FileNotFoundError:
        return  # another process was faster
    log.warning("%s is damaged; set aside, to be made again", path)


def _tail(source: pa.NativeFile) -> bytes:
    """The footer of a Parquet file with its length and the closing mark. ArrowInvalid if there is none."""
    size = source.size()
    source.seek(max(0, size - 8))
    end = source.read(8)
    start = size - 8 - int.from_bytes(end[:4], "little")
    if end[4:] != END or start < len(END):
        raise pa.ArrowInvalid("no Parquet footer")
    source.seek(start)
    return bytes(source.read(size - start))


def _num_values(column: pa.ChunkedArray) -> int:
    """Values as Parquet counts them: an empty list is one."""
    if not pa.types.is_list(column.type):
        return len(column)
    return sum(max(1, length) for length in pc.list_value_length(column).to_pylist())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
