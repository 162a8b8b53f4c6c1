"""What a worker's device has: memory, and operations a second at its best."""

import re

import torch

from time_ray.merging.engine import DEVICE_CHUNK
from time_ray.model_needs import USABLE
from time_ray.weight_cache import Weights, num_bytes

# TFLOP/s of dense matrices: fp32, TF32, 16 bits; by a word of the device's name, the more special name first
_PEAKS = {
    "B200": (75.0, 1125.0, 2250.0),
    "H200": (67.0, 494.0, 989.0),
    "H100 PCIe": (51.0, 378.0, 756.0),
    "H100 NVL": (60.0, 418.0, 835.0),
    "H100": (67.0, 494.0, 989.0),
    "H20": (44.0, 74.0, 148.0),
    "A100": (19.5, 156.0, 312.0),
    "L40S": (91.6, 183.0, 362.0),
    "L4": (30.3, 60.0, 121.0),
    "A10G": (31.2, 35.0, 70.0),
}
_PIECES = 16
_COLUMN = {"fp32": 0, "tf32": 1, "bf16": 2, "fp16": 2}


def peak_tflops(device: str, precision: str) -> float | None:
    """TFLOP/s that a GPU is made for in this precision; None of a CPU, and of what is not known here."""
    if not is_gpu(device) or precision not in _COLUMN:
        return None
    return named_peak(torch.cuda.get_device_name(device), precision)


def named_peak(name: str, precision: str) -> float | None:
    """As `peak_tflops`, by the name that CUDA gives a GPU."""
    for words, peaks in _PEAKS.items():
        if re.search(rf"\b{words}\b", name):
            return peaks[_COLUMN[precision]]
    return None


def usable_bytes(device: str) -> float | None:
    """Memory of a GPU that tensors may take in all; None of a CPU."""
    return USABLE * torch.cuda.get_device_properties(device).total_memory if is_gpu(device) else None


def free_bytes(device: str) -> int | None:
    """Memory of a GPU that new tensors may take, of what torch holds in reserve, too; None of a CPU."""
    if not is_gpu(device):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def merging_bytes(weights: Weights) -> int:
    """Memory that a merge of such weights takes of a device at the most: one state that is kept, and a piece at work.

    Those that fold tensors whole work on the largest one: base, expert, state, singular vectors and what finds them.
    """
    largest = max((tensor.nbytes for tensor in weights.values()), default=0)
    return num_bytes(weights) + _PIECES * max(largest, 4 * DEVICE_CHUNK)


def peak_from_now_on(device: str) -> None:
    """What `peak_bytes` says is of the time after this."""
    if is_gpu(device):
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: str) -> int | None:
    """The most memory of a GPU that tensors took; None of a CPU."""
    return torch.cuda.max_memory_allocated(device) if is_gpu(device) else None


def is_gpu(device: str) -> bool:
    """Whether a device, by torch's name, is a GPU."""
    return torch.device(device).type == "cuda"
