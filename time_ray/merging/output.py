"""An output file that is there whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import CDLL, c_int64, c_uint
from pathlib import Path

from torch import Tensor

from time_ray.merging.models import DTYPES, buffer_of
from time_ray.merging.pieces import TensorEntry

NAMES = {dtype: name for name, dtype in DTYPES.items()}
Write = Callable[[TensorEntry, int, Tensor], None]
"""Writes values at the start-th element of a tensor."""
BEHIND = 32 << 20
"""Whenever so many more bytes are written, the system is told to put them on disk."""
LIBC = CDLL(None)


def header(entries: Sequence[TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """The header of a safetensors file with these tensors in this order, its length in front."""
    described: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for entry in entries:
        first, end = end, end + entry.size * entry.dtype.itemsize
        described[entry.name] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [first, end],
        }
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def faults(output: Path, entries: Sequence[TensorEntry], inputs: Sequence[Path]) -> Iterator[str]:
    """Every reason why a model cannot be written there."""
    folder = output.absolute().parent
    if not folder.is_dir():
        yield f"{output}: its folder does not exist; create {folder}"
    elif not os.access(folder, os.W_OK):
        yield f"{output}: its folder cannot be written; give another place"
    elif output.is_dir():
        yield f"{output}: is a folder; give the name of a file"
    elif output.exists() and not output.is_file():
        yield f"{output}: is no plain file; give the name of one"
    elif os.path.realpath(output) in map(os.path.realpath, inputs):
        yield f"{output}: is one of the inputs; give another name"
    else:
        needed = sum(entry.size * entry.dtype.itemsize for entry in entries)
        free = shutil.disk_usage(folder).free
        if needed > free:
            yield f"{output}: needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free some space"


@contextmanager
def whole_file(output: Path, entries: Sequence[TensorEntry], metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that writes values into the file; the file has its name, on disk, once the block ends without error.

    Until then its bytes lie in `.<name>.<process>.part` beside it, which is removed on any error.
    """
    output = output.absolute()
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    start = header(entries, metadata)
    offsets, end = {}, len(start)
    for entry in entries:
        offsets[entry.name] = end
        end += entry.size * entry.dtype.itemsize
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)

    def write(entry: TensorEntry, place: int, values: Tensor) -> None:
        values = values.contiguous()
        view, first = memoryview(buffer_of(values)), offsets[entry.name] + place * entry.dtype.itemsize
        write_all(file, view, first)
        if first // BEHIND < (first + view.nbytes) // BEHIND:
            start_writeback(file)

    try:
        with contextlib.closing(os.fdopen(file, "r+b", buffering=0)):
            os.truncate(file, end)
            write_all(file, memoryview(start), 0)
            yield write
            os.fsync(file)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(output.parent)


def write_all(file: int, view: memoryview, place: int) -> None:
    """All bytes of the view are in the file from this place on."""
    while view:
        count = os.pwrite(file, view, place)
        view, place = view[count:], place + count


def start_writeback(file: int) -> None:
    """The system has begun to put on disk what was written so far, so that the last sync finds little to wait for."""
    if hasattr(LIBC, "sync_file_range"):  # Linux
        LIBC.sync_file_range(file, c_int64(0), c_int64(0), c_uint(2))


def sync_folder(folder: Path) -> None:
    """The names in the folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
