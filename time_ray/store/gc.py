"""Frees what nothing needs. Experiments that are named keep all that they can still reach."""

from collections.abc import Iterator
from contextlib import nullcontext

from time_ray.store.files import Files
from time_ray.store.inventory import Inventory, Reach, Waste
from time_ray.store.lease import CLEANING, lease


def collect(files: Files, reach: Reach | None, *, young: bool = False, dry: bool = False) -> Iterator[Waste]:
    """What nothing needs (see Inventory.waste), each removed by the time it is told, or only told in a dry run.

    UserError while a sweep runs on the storage.
    """
    with nullcontext() if dry else lease(files, CLEANING):
        for item in Inventory.of(files).waste(reach, young=young):
            if not dry:
                files.delete(item.path)
            yield item
