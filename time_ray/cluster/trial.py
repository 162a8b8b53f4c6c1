"""What Ray Tune runs: one Ray Train job that takes the cells of a trajectory through the temporal loop.

Where a trial has several workers, other processes of it only pass on what these are told. So this file imports
little, and the job travels as bytes that the workers alone open.
"""

import pickle
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from time_ray.cluster.room import Request, Resources

if TYPE_CHECKING:
    from time_ray.plugins import PluginFile
    from time_ray.store.store import Store
    from time_ray.study import Study

GROUP_BYTES = 1.3e9  # the trial's process, Ray Train's controller and its four helpers, measured


@dataclass(frozen=True)
class Job:
    """What every worker of a sweep is told."""

    plugins: "tuple[PluginFile, ...]"  # loaded before the study is opened, which may hold what they define
    installed: dict[str, str]  # plugins of packages by name, and the distributions that must be there for them
    study: bytes  # the experiment and its datasets
    storage: str
    mark: str | None  # of the key that the store is signed with; the key itself is in the workers' environment
    coordinator: str  # the coordinator actor's name
    umask: int  # by which results in the storage may be read by others, or not
    profiles: str | None = None  # the folder on the storage for traces of trials; None: none are made

    @staticmethod
    def read(pickled: bytes) -> "Job":
        """The job that the sweep's own driver has sent through Ray."""
        job: Job = pickle.loads(pickled)  # noqa: S301
        return job

    def open_store(self) -> "Store":
        """The store, with the key that the sweep has. Raises UserError on a machine without it."""
        from time_ray.core.errors import UserError
        from time_ray.store.files import Files
        from time_ray.store.lease import LEASES
        from time_ray.store.signing import KEY
        from time_ray.store.store import Store

        store = Store(Files(self.storage, landmark=LEASES))
        if store.mark != self.mark:
            raise UserError(f"{KEY}: this worker has not the one of the sweep; set it in the environment of every node")
        return store

    def open_study(self) -> "Study":
        """The study, with the plugins that it needs loaded. Raises UserError where this machine lacks one."""
        from time_ray.plugins import load_job_plugins
        from time_ray.study import resolve

        load_job_plugins(self.plugins, self.installed)
        return resolve(*pickle.loads(self.study))  # noqa: S301 it comes from our own driver, through Ray


@dataclass(frozen=True)
class Scratch:
    """Where Ray keeps files of its own while trials run; nothing there is needed again."""

    path: str
    storage: str | None = None  # the address of the storage that the path lies on; None: a folder

    def where(self) -> dict[str, Any]:
        """As Ray takes it: with the connection, not with the address, which may hold secrets."""
        if self.storage is None:
            return {"storage_path": self.path}
        from time_ray.store.files import Files

        return {"storage_path": self.path, "storage_filesystem": Files(self.storage).filesystem}


@dataclass(frozen=True)
class Placed:
    """A trial, and what it holds while it runs."""

    cells: tuple[str, ...]  # keys
    request: Request
    lengths: bool = True  # whether they are scored at other lengths, too

    @property
    def held(self) -> Resources:
        """What Ray Tune reserves for the trial's own process.

        A single worker is that process. A group of workers is placed by Ray Train, and the process only waits for it;
        it asks for the memory that it takes with its helpers, so that those of many trials are spread over nodes.
        """
        return self.request.worker if self.request.workers == 1 else (("memory", GROUP_BYTES),)


def tune_trial(config: dict[str, Any], *, job: bytes, scratch: Scratch, max_failures: int) -> None:
    """The Tune trainable: the cells' worker, or a group of workers that Ray Train starts, has worked on them.

    A single worker is this process (Ray Train's local mode), which Tune uses again for the next trial, with all that
    is in its memory.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trial: Placed = config["placed"]
    told: dict[str, Any] = {
        "job": job,
        "cells": trial.cells,
        "worker": dict(trial.request.worker),
        "holder": holder(config["trial"]),
        "lengths": trial.lengths,
    }
    if trial.request.workers == 1:
        TorchTrainer(train_worker, train_loop_config=told, scaling_config=ScalingConfig(num_workers=0)).fit()
        return
    from time_ray.cluster.devices import GpuGroup
    from time_ray.cluster.trial_starts import GroupStarts

    gpus = "GPU" in told["worker"]
    TorchTrainer(
        train_worker,
        train_loop_config=told,
        scaling_config=ScalingConfig(
            num_workers=trial.request.workers, use_gpu=gpus, resources_per_worker=told["worker"]
        ),
        torch_config=GpuGroup() if gpus else TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name=f"trial-{config['trial']}-{uuid.uuid4().hex[:8]}",  # fresh: truth lies in our store
            **scratch.where(),
            callbacks=[GroupStarts(Job.read(job).coordinator, holder(config["trial"]), trial.request.workers)],
            failure_config=FailureConfig(max_failures=max_failures, controller_failure_limit=20),
        ),
    ).fit()


def holder(number: int) -> str:
    """The name in which a trial takes leases: the same one again when it is started again."""
    return f"trial {number}"


def trial_number(holder: str) -> int:
    """The trial of that name."""
    return int(holder.removeprefix("trial "))


def train_worker(told: dict[str, Any]) -> None:
    """What every worker of a trial runs."""
    from time_ray.cluster.worker import work_on

    work_on(told["job"], told["cells"], holder=told["holder"], resources=told["worker"], lengths=told["lengths"])
