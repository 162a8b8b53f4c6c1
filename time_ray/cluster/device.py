"""What a worker's device has: memory, and operations a second at its best."""

import torch


def free_bytes(device: str) -> int | None:
    """Memory of a GPU that new tensors may take, of what torch holds in reserve, too; None of a CPU."""
    if torch.device(device).type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
