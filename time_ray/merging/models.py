"""Models as a merge reads them, a run of elements at a time: tensors in memory, or a safetensors file."""

import json
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from ctypes import c_char
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from time_ray.merging.errors import MergeError
from time_ray.merging.pieces import TensorEntry

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
METADATA = "__metadata__"
"""What a header calls all that it says beside the tensors."""
HEADER_LIMIT = 100_000_000
"""The format's own limit on the header, in bytes."""
MAPPED = 8 << 20
"""Bytes of a file that may be in this process's memory at a time."""
MAPPED_IN_ALL = 256 << 20
"""The same for all files of a merge."""

ModelLike = Mapping[str, Tensor] | str | os.PathLike[str]
"""What the public functions take for a model: tensors by name, or a path; see `opening.open_model`."""


class Model(ABC):
    """A model that is read a run of elements at a time."""

    label: str
    """What messages call it."""
    entries: tuple[TensorEntry, ...]
    """Its tensors, in order."""
    notes: tuple[str, ...] = ()
    """What was done to read it that its owner may not expect."""

    @abstractmethod
    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """The elements from start to stop of a tensor, flat, in this model's dtype; not to be changed.

        `entry` may be another model's: its name and shape count.
        """

    def on_cpu(self) -> bool:
        """Whether all its tensors are in main memory."""
        return True

    def by_name(self) -> dict[str, TensorEntry]:
        """Its tensors by name."""
        return {entry.name: entry for entry in self.entries}


class MemoryModel(Model):
    """Tensors in memory; they are never changed."""

    def __init__(self, tensors: Mapping[str, Tensor], label: str) -> None:
        """MergeError names every tensor that has no values, or not all of them in one place."""
        MergeError.unless_none(valueless(tensors, label))
        self.label = label
        self.flat = {name: tensor.detach().contiguous().view(-1) for name, tensor in tensors.items()}
        self.entries = tuple(TensorEntry(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items())

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """A view of the tensor."""
        return self.flat[entry.name][start:stop]

    def on_cpu(self) -> bool:
        """Whether all its tensors are in main memory."""
        return all(tensor.device.type == "cpu" for tensor in self.flat.values())


def valueless(tensors: Mapping[str, Any], label: str) -> Iterator[str]:
    """What is wrong with values that are no plain tensors."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            yield f"{label}: {name} is no tensor but {type(tensor).__name__}; give the model's state_dict()"
        elif tensor.is_meta:
            yield f"{label}: {name} is on the meta device, without values; load the weights first"
        elif tensor.is_quantized:
            yield f"{label}: {name} is quantized; give tensor.dequantize()"
        elif tensor.layout != torch.strided:
            layout = str(tensor.layout).removeprefix("torch.")
            yield f"{label}: {name} is sparse ({layout}); give tensor.to_dense()"


class OpenFile:
    """A file that stays open as long as it is used: renaming another one over it changes nothing."""

    def __init__(self, path: Path) -> None:
        """MergeError if it cannot be read."""
        self.path = path
        try:
            self.handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise MergeError(f"{path}: cannot be read ({error.strerror}); give the path of a model") from error

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)

    def stat(self) -> os.stat_result:
        """Size and time."""
        return os.fstat(self.handle)


class StoredModel(Model):
    """A model on disk."""

    path: Path
    """What it is told apart by: a file of its weights."""
    name: str
    """What a recipe calls it."""
    files: tuple[OpenFile, ...]
    """All that it is read from, in a fixed order."""
    metadata: Mapping[str, str]
    """What its header says beside the tensors."""


class FileModel(StoredModel):
    """A safetensors file; only its header and a few megabytes are in memory.

    Tensors are views of the mapped file, so that reading copies nothing. The file must not be cut short meanwhile.
    """

    def __init__(self, path: Path, mapped: int = MAPPED) -> None:
        """`mapped` bytes may be in memory at a time. MergeError names the file and what is wrong with it."""
        self.label, self.path, self.name = str(path), path, path.name
        self.mapped = mapped
        self.touched = 0
        self.files = (OpenFile(path),)
        self.file = self.files[0].handle
        try:
            self.header, self.data = read_header(self.file)
            self.metadata = metadata_of(self.header)
            self.entries = tuple(entry_of(name, spec) for name, spec in tensors_of(self.header))
        except OSError as error:
            raise MergeError(f"{path}: cannot be read ({error.strerror}); give the path of a model") from error
        except Unreadable as error:
            raise MergeError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MergeError(f"{path}: not a whole safetensors file ({error}); give one") from error
        self.own = self.by_name()
        self.mapping, self.flat = mapping_of(self.file), {}
        if self.mapping:
            self.flat = dict(views(self.mapping, self.entries, self.header, self.data))

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """A view of the file; a copy of what is large, lies askew, or cannot be mapped."""
        length = (stop - start) * self.own[entry.name].dtype.itemsize
        if self.mapping is None or length > self.mapped or entry.name not in self.flat:
            return self.read_copy(entry, start, stop)
        self.touched += length
        if self.touched > self.mapped:
            self.touched = length
            self.mapping.madvise(mmap.MADV_DONTNEED)
        return self.flat[entry.name][start:stop]

    def read_copy(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """The elements, read from their place in the file."""
        values = torch.empty(stop - start, dtype=self.own[entry.name].dtype)
        size = values.element_size()
        place = self.data + self.header[entry.name]["data_offsets"][0] + start * size
        view = memoryview(buffer_of(values))
        while view:
            count = os.preadv(self.file, [view], place)
            if not count:
                raise MergeError(f"{self.label}: ends within {entry.name}; give a whole safetensors file")
            view, place = view[count:], place + count
        return values


class Unreadable(Exception):  # noqa: N818 - a signal within this file
    """A tensor of a kind that is not read."""


def mapping_of(file: int) -> mmap.mmap | None:
    """The file in memory as far as it is looked at; None where its file system cannot do that.

    It is private: what is written to it never reaches the file.
    """
    try:
        return mmap.mmap(file, 0, access=mmap.ACCESS_COPY)
    except OSError:
        return None


def views(
    mapping: mmap.mmap, entries: Iterable[TensorEntry], header: Mapping[str, Any], data: int
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a mapped file by name, flat; without those that are empty or not aligned to their elements."""
    for entry in entries:
        place = data + header[entry.name]["data_offsets"][0]
        if entry.size and not place % entry.dtype.itemsize:
            yield entry.name, torch.frombuffer(mapping, dtype=entry.dtype, count=entry.size, offset=place)


def buffer_of(values: Tensor) -> Any:
    """The memory of a contiguous tensor as a writable buffer; the tensor must outlive it."""
    return (c_char * (values.numel() * values.element_size())).from_address(values.data_ptr())


def entry_of(name: str, spec: Mapping[str, Any]) -> TensorEntry:
    """One tensor of a header; ValueError if it does not add up, Unreadable if torch has no such numbers."""
    if spec["dtype"] not in DTYPES:
        raise Unreadable(f"{name} is {spec['dtype']}{spec['shape']}; convert it to float32, float16 or bfloat16")
    found = TensorEntry(name, DTYPES[spec["dtype"]], tuple(spec["shape"]))
    first, last = spec["data_offsets"]
    if not all(isinstance(size, int) and size >= 0 for size in (first, last, *found.shape)):
        raise ValueError(f"{name} has a size or a place that is none")
    if last - first != found.size * found.dtype.itemsize:
        raise ValueError(f"{name} has {last - first} bytes for {found}")
    return found


def read_header(file: int) -> tuple[dict[str, Any], int]:
    """The header of an open safetensors file, and the offset of the first tensor's bytes."""
    size = int.from_bytes(os.pread(file, 8, 0), "little")
    if not 2 <= size <= HEADER_LIMIT:
        raise ValueError(f"its header would have {size} bytes")
    header = json.loads(os.pread(file, size, 8))
    check_layout(header, os.fstat(file).st_size - 8 - size)
    return header, 8 + size


def check_layout(header: Mapping[str, Any], size: int) -> None:
    """ValueError unless the tensors fill so many bytes, one after another, as the format wants it."""
    places = sorted(spec["data_offsets"] for _, spec in tensors_of(header))
    end = places[-1][1] if places else 0
    if end > size:
        raise ValueError(f"{end - size} bytes are missing at its end")
    if end < size:
        raise ValueError(f"{size - end} bytes follow its last tensor")
    if any(start != place[0] for start, place in zip([0, *(place[1] for place in places)], places, strict=False)):
        raise ValueError("its tensors overlap, or leave gaps")


def tensors_of(header: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a header says of each tensor."""
    return [(name, spec) for name, spec in header.items() if name != METADATA]


def metadata_of(header: Mapping[str, Any]) -> dict[str, str]:
    """What a header says beside the tensors. ValueError unless it is texts by name."""
    found = header.get(METADATA) or {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"its {METADATA} is no mapping of names to texts")
    return found
