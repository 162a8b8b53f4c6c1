"""A worker of a trial: the cells it is told, on its device. What it has opened it keeps for the next trial."""

import traceback
from collections.abc import Collection, Mapping
from functools import lru_cache

import ray
import torch
from ray.train.torch import get_device
from torch import distributed as dist

from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator_actor import RemoteCoordinator
from time_ray.cluster.trial import Job
from time_ray.cluster.work import one_line, work
from time_ray.core.errors import StoreError
from time_ray.events import CellFailed
from time_ray.store.files import Files
from time_ray.store.lease import LEASES
from time_ray.store.store import Store


def work_on(job: bytes, cells: Collection[str], *, holder: str, resources: Mapping[str, float]) -> None:
    """The cells of a trial have run as far as they can. Called on all its workers.

    Args:
        job: A pickled Job.
        cells: By key.
        holder: In whose name leases are taken.
        resources: What this worker holds, by Ray's names.

    Raises:
        Exception: What ended this worker. What cannot pass was told as failures first, so that the cells are left out
            when the workers are started again.

    """
    told = Job.read(job)
    coordinator = RemoteCoordinator(ray.get_actor(told.coordinator))
    wanted = set(cells) - coordinator.failed(cells)
    if not wanted:
        return
    torch.set_num_threads(int(resources["CPU"]))
    try:
        backend = _backend(job, gpu="GPU" in resources)
    except StoreError:
        raise  # it may pass
    except Exception as error:
        for key in wanted:
            coordinator.emit(CellFailed(key, one_line(error), traceback.format_exc()))
        if dist.is_initialized():
            raise  # other workers wait for this one
        return
    backend.hold_as(holder)
    ours = [backend.cells[key] for key in cells if key in wanted]
    backend.keep_only(cell.setting for cell in ours)
    work(ours, backend)


@lru_cache(maxsize=1)
def _backend(job: bytes, *, gpu: bool) -> SweepBackend:
    """The backend of the job's study on this worker's device."""
    told = Job.read(job)
    coordinator = RemoteCoordinator(ray.get_actor(told.coordinator))
    device = str(get_device()) if gpu else "cpu"
    return SweepBackend(told.open_study(), Store(Files(told.storage, landmark=LEASES)), coordinator, device=device)
