"""The arithmetic of a precision on a device: autocast for 16 bits, TF32 for products, and whether it is there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from time_ray.core.errors import CellError
from time_ray.core.precision import Precision

AMPERE = (8, 0)  # the first compute capability with TF32 and bfloat16
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Arithmetic:
    """How models compute in a precision on a device.

    Raises CellError, saying what to set, for a device that lacks the precision or only imitates it.
    """

    def __init__(self, precision: Precision, device: torch.device, setting: str = "training.precision") -> None:
        if missing := _missing(precision, device):
            msg = f"{setting}: {precision} is not there on {missing}; set {_instead(precision, device)}"
            raise CellError(msg)
        self._device = device
        self._dtype = _AUTOCAST.get(precision, torch.float32)
        self._tf32 = precision == "tf32"

    @contextmanager
    def forward(self) -> Iterator[None]:
        """A model's forward pass runs within."""
        with self.products(), torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            yield

    @contextmanager
    def products(self) -> Iterator[None]:
        """Within, float32 products on a GPU are TF32 if that is the precision, and exact in every other one.

        By itself torch takes TF32 for convolutions.
        """
        if self._device.type != "cuda":
            yield
            return
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self._tf32
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


def _missing(precision: Precision, device: torch.device) -> str:
    """The device by name, if it lacks the precision."""
    if device.type == "cpu":
        return "a CPU" if precision == "tf32" else ""
    if precision in {"fp32", "fp16"} or torch.version.hip or torch.cuda.get_device_capability(device) >= AMPERE:
        return ""
    return torch.cuda.get_device_name(device)


def _instead(precision: Precision, device: torch.device) -> str:
    return "fp16, or fp32" if precision == "bf16" and device.type == "cuda" else "fp32"
