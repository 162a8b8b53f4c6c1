"""What devices are called, as people read it."""

import torch


def device_names(device: str, count: int = 1) -> str:
    """So many devices of the kind of this one, as in `4 x NVIDIA L4`."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return name if count == 1 else f"{count} x {name}"
