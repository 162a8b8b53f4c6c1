"""Frees what nothing needs. Experiments that are named keep all that they can still reach."""

from collections.abc import Iterator
from contextlib import nullcontext

from time_ray.core.errors import StoreError
from time_ray.store.files import Files
from time_ray.store.inventory import Garbage, Inventory, Reachable
from time_ray.store.lease import CLEANING, lease


def collect(files: Files, reachable: Reachable | None, *, young: bool = False, dry: bool = False) -> Iterator[Garbage]:
    """What nothing needs (see Inventory.garbage), each removed by the time it is told, or only told in a dry run.

    UserError while a sweep runs on the storage; StoreError if the storage is no longer held for the cleaning.
    """
    lost: list[str] = []
    with nullcontext() if dry else lease(files, CLEANING, lost.append):
        for item in Inventory.of(files).garbage(reachable, young=young):
            if lost:
                raise StoreError(lost[0])
            if not dry:
                files.delete(item.path)
            yield item
