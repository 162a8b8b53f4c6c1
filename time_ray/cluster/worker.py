"""A worker of a trial: the cells it is told, on its device. What it has opened it keeps for the next trial."""

import os
import traceback
import uuid
from collections.abc import Collection, Mapping
from functools import lru_cache

import ray
import torch

from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.candidates import scored
from time_ray.cluster.coordinator_actor import RemoteCoordinator
from time_ray.cluster.devices import device
from time_ray.cluster.ranks import Ranks
from time_ray.cluster.trial import Job
from time_ray.cluster.work import one_line, work
from time_ray.core.errors import StoreError
from time_ray.core.grid import without_lengths
from time_ray.core.secrets import hidden
from time_ray.core.tuning import Candidate
from time_ray.events import CellFailed


def work_on(job: bytes, cells: Collection[str], *, holder: str, resources: Mapping[str, float], lengths: bool) -> None:
    """The cells of a trial have run as far as they can. Called on all its workers.

    Args:
        job: A pickled Job.
        cells: By key.
        holder: In whose name leases are taken.
        resources: What this worker holds, by Ray's names.
        lengths: Whether the cells are scored at other lengths, too.

    Raises:
        Exception: What ended this worker, and not all others alike. What cannot pass was told as failures first, so
            that the cells are left out when the workers are started again.

    """
    told = Job.read(job)
    os.umask(told.umask)
    coordinator = RemoteCoordinator(ray.get_actor(told.coordinator))
    ranks = Ranks()
    wanted = set(cells) - ranks.broadcast(lambda: coordinator.failed(cells))  # the same on all
    if not wanted:
        return
    torch.set_num_threads(int(resources["CPU"]))
    try:
        backend = _backend(job, gpu="GPU" in resources)
    except StoreError:
        raise  # it may pass
    except Exception as error:  # noqa: BLE001 whatever it is, people hear of it
        for key in wanted:
            coordinator.emit(CellFailed(key, one_line(error), hidden(traceback.format_exc())))
        ranks.agree_on(error)
        return
    backend.hold_as(holder)
    ours = [backend.cells[key] for key in cells if key in wanted]
    ours = ours if lengths else list(without_lengths(ours))
    backend.keep_only(cell.setting for cell in ours)
    work(ours, backend)


def score_candidate(
    job: bytes, tuning: str, suggested: Mapping[str, float], *, resources: Mapping[str, float]
) -> Candidate:
    """What parameters of a technique score. Raises StoreError.

    Args:
        job: A pickled Job.
        tuning: The search, by its key in the job's study.
        suggested: By Optuna.
        resources: What this worker holds, by Ray's names.

    """
    os.umask(Job.read(job).umask)
    torch.set_num_threads(int(resources["CPU"]))
    backend = _backend(job, gpu="GPU" in resources)
    backend.hold_as(f"candidate {uuid.uuid4().hex}")
    (ours,) = (one for one in backend.study.tunings if one.key == tuning)
    return scored(ours, suggested, backend)


@lru_cache(maxsize=1)
def _backend(job: bytes, *, gpu: bool) -> SweepBackend:
    """The backend of the job's study on this worker's device."""
    told = Job.read(job)
    coordinator = RemoteCoordinator(ray.get_actor(told.coordinator))
    return SweepBackend(
        told.open_study(),
        told.open_store(),
        coordinator,
        device=device(gpu=gpu),
        cpus_a_gpu=_cpus_a_gpu() if gpu else None,
        profiles=told.profiles,
    )


def _cpus_a_gpu() -> float:
    """CPUs of this node for each of its GPUs."""
    here = ray.get_runtime_context().get_node_id()
    (has,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return float(has.get("CPU", 0) / has["GPU"])
