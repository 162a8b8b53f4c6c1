"""Batches on their way to a GPU: the next one is copied there while the one before it is in use."""

from collections.abc import Iterable, Iterator

import torch

from time_ray.data.batch import Batch


def copied_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches, with their images on the device.

    Images come in pinned memory, so that nobody waits for a copy: neither this thread nor what the GPU computes.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            images = batch.images.to(device, non_blocking=True)
            copied = copying.record_event()
        if before is not None:
            yield _there(*before)
        before = Batch(images, batch.texts), copied
    if before is not None:
        yield _there(*before)


def _there(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """The batch, which what is computed from here on waits for."""
    computing = torch.cuda.current_stream(batch.images.device)
    computing.wait_event(copied)
    batch.images.record_stream(computing)
    return batch
