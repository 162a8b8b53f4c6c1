"""A device that is not there: tensors that say they are on it, and are computed on the CPU.

Values are true, so that code may look at them. What mixes devices raises, as it would on a device that is there.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
_COPIES = ("_to_copy", "copy_")  # what may have tensors of two devices


class There(Tensor):
    """A tensor on the device."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Self:
        found: Self = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        found.values = values
        return found

    def tolist(self) -> Any:
        return self.values.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Counter())


class Pretending(TorchDispatchMode):
    """While it is on, the device is there; `calls` counts what was done on it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.calls)


@contextmanager
def pretended() -> Iterator[Pretending]:
    """The device is there, and counts."""
    torch._C._ensureCUDADeviceGuardSet()  # as for torch's own fake tensors: without a driver there is nothing to guard
    with patch("torch.cuda._lazy_init"), Pretending() as mode:
        yield mode


def _run(func: Any, args: Any, kwargs: Any, calls: Counter[str]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = any(isinstance(one, There) for one in tensors)
    if name not in _COPIES and there and any(not isinstance(one, There) and one.dim() for one in tensors):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    asked = kwargs.get("device")
    on_it = (there if asked is None else torch.device(asked).type == "cuda") if name != "copy_" else None
    inner = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    found = func(*tree_map(_unwrapped, args), **tree_map(_unwrapped, inner))
    if on_it is None or func._schema.is_mutable:
        return args[0] if "out" not in kwargs and isinstance(found, Tensor) else kwargs.get("out", found)
    if not on_it:
        return found
    calls[name] += 1
    return tree_map(lambda one: There(one) if isinstance(one, Tensor) else one, found)


def _unwrapped(one: Any) -> Any:
    return one.values if isinstance(one, There) else one
