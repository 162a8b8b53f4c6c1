"""What the checks run on: a device, and how large they are on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from time_ray.clip.models import Clip, base_weights, create
from time_ray.cluster.device_capacity import peak_tflops
from time_ray.core.model import ModelSpec
from time_ray.data.batch import Batch

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Machine:
    """A device and a folder to write to."""

    device: torch.device
    folder: Path

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.is_gpu else "CPU"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that this device computes in, but for float16."""
        if not self.is_gpu:
            return ("fp32", "bf16")
        return ("fp32", "tf32", "bf16") if torch.cuda.get_device_capability(self.device) >= (8, 0) else ("fp32",)

    def peak(self, precision: str) -> float | None:
        """FLOP/s at the most; None if nobody knows."""
        peak = peak_tflops(str(self.device), precision)
        return None if peak is None else peak * 1e12

    def wait(self) -> None:
        """All that the device was told to do is done."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def held(self) -> int:
        """Bytes of tensors: on the GPU, or alive in this process."""
        import gc

        gc.collect()
        if self.is_gpu:
            self.wait()
            return torch.cuda.memory_allocated(self.device)
        storages = {}
        for one in gc.get_objects():
            if type(one) in {Tensor, torch.nn.Parameter} and one.layout == torch.strided and one.device.type == "cpu":
                storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return sum(storages.values())

    def seconds(self, act: Callable[[], Any], times: int = 3) -> float:
        """The least of several, after one that does not count."""
        spent = []
        for _ in range(times + 1):
            self.wait()
            began = time.perf_counter()
            act()
            self.wait()
            spent.append(time.perf_counter() - began)
        return min(spent[1:])


def mini(name: str = "mini-tiny") -> tuple[Clip, Weights]:
    """A model of the mini world, with the weights that are shipped."""
    spec = ModelSpec(name=name)
    return create(spec), dict(base_weights(spec))


def pairs(clip: Clip, steps: int, count: int, *, words: int = 6) -> list[Batch]:
    """Batches of random pictures and captions of so many words, the same every time."""
    generator = torch.Generator().manual_seed(0)
    side = clip.preprocessing.resizing.size
    return [
        Batch(
            torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator),
            [
                " ".join(["a photo of"] + [f"thing {step * 31 + place * 7 + i}" for i in range(words // 2)])
                for place in range(count)
            ],
        )
        for step in range(steps)
    ]


def farthest(one: Weights, other: Weights) -> float:
    """The largest difference of two numbers at the same place."""
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one if one[name].numel())
