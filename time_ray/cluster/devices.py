"""The device of a worker: the GPU that Ray gave it if torch can use it, and how workers with GPUs find each other."""

import socket
from dataclasses import replace
from typing import Any

import torch
from ray.train.torch import TorchConfig, get_device
from ray.train.torch.config import _TorchBackend

from time_ray.core.errors import UserError


def device(*, gpu: bool) -> str:
    """Where this worker trains and evaluates.

    Args:
        gpu: Whether Ray has given it one.

    Raises:
        UserError: Torch cannot use it. Training on the CPU instead would hold a GPU and take for ever.

    """
    if not gpu:
        return "cpu"
    if torch.cuda.is_available():
        return str(get_device())
    built, remedy = "is built for the CPU", "install a torch built for CUDA there"
    if torch.version.cuda is not None:
        built = f"sees none (it is built for CUDA {torch.version.cuda})"
        remedy = "see that nvidia-smi works there, and that its driver is new enough"
    where = f"node {socket.gethostname()}: Ray gives a GPU, but torch {torch.__version__}"
    raise UserError(f"{where} {built}; {remedy}, or set run.gpus=0")


class GpuGroup(TorchConfig):  # type: ignore[misc]  # Ray is not typed
    """How workers with a GPU each find each other: over NCCL.

    Where torch cannot use the GPU of one of them they meet over gloo, so that each gets to say what is wrong: NCCL
    would only fail, again and again.
    """

    @property
    def backend_cls(self) -> type:
        """See TorchConfig."""
        return _GpuBackend


class _GpuBackend(_TorchBackend):  # type: ignore[misc]  # Ray is not typed
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """See Backend."""
        usable = all(worker_group.execute(torch.cuda.is_available))
        super().on_start(worker_group, replace(backend_config, backend="nccl" if usable else "gloo"))
