"""A worker's device: never silently another one than Ray gave it."""

import pytest
import torch

from time_ray.clip.device_names import device_names
from time_ray.cluster.devices import device
from time_ray.core.errors import UserError


@pytest.mark.parametrize(
    ("cuda", "words"),
    [
        (None, "is built for the CPU; install a torch built for CUDA there, or set run.gpus=0"),
        ("12.8", "sees none (it is built for CUDA 12.8); see that nvidia-smi works there, and that its driver is new"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch, cuda: str | None, words: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert device(gpu=False) == "cpu"
    with pytest.raises(UserError) as refused:
        device(gpu=True)
    (line,) = refused.value.faults
    assert f": Ray gives a GPU, but torch {torch.__version__} {words}" in line


def test_a_device_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA L4")
    assert (device_names("cpu"), device_names("cpu", 2)) == ("CPU", "2 x CPU")
    assert (device_names("cuda:0"), device_names("cuda:0", 4)) == ("NVIDIA L4", "4 x NVIDIA L4")
