"""What Ray Tune runs: one Ray Train job that takes a bundle of cells through the temporal loop.

Several processes of a trial only pass on what the workers are told, so this file imports little, and the job
travels as bytes that the workers alone open.
"""

import pickle
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from time_ray.plugins import PluginFile
    from time_ray.study import Study


@dataclass(frozen=True)
class TrialSettings:
    """What one trial occupies, and how often it may fail."""

    workers: int
    threads: int  # CPUs of a worker
    gpus: float  # GPUs of a worker
    max_failures: int


@dataclass(frozen=True)
class Job:
    """What every worker of a sweep is told."""

    plugins: "tuple[PluginFile, ...]"  # loaded before the study is opened, which may hold what they define
    installed: dict[str, str]  # plugins of packages by name, and the distributions that must be there for them
    study: bytes  # the experiment and its datasets
    storage: str
    coordinator: str  # the coordinator actor's name

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


def tune_trial(
    config: dict[str, Any], *, job: bytes, bundles: Sequence[Sequence[str]], settings: TrialSettings, scratch: Scratch
) -> None:
    """The Tune trainable: start the bundle's workers with Ray Train and wait for them. `bundles` are cell keys."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "cells": tuple(bundles[config["bundle"]]), "settings": settings},
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpus > 0,
            resources_per_worker={"CPU": settings.threads, **({"GPU": settings.gpus} if settings.gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if settings.gpus else "gloo"),
        run_config=RunConfig(
            name=f"bundle-{config['bundle']}-{uuid.uuid4().hex[:8]}",  # fresh: truth lies in our store
            **scratch.where(),
            failure_config=FailureConfig(max_failures=settings.max_failures, controller_failure_limit=20),
        ),
    ).fit()


def train_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: the bundle's cells, on this worker's device."""
    import ray
    import torch
    from ray.train.torch import get_device

    from time_ray.cluster.backend import SweepBackend
    from time_ray.cluster.bundle import work
    from time_ray.cluster.coordinator_actor import RemoteCoordinator
    from time_ray.store.files import Files
    from time_ray.store.store import Store

    job: Job = pickle.loads(config["job"])  # noqa: S301 it comes from our own driver, through Ray
    settings: TrialSettings = config["settings"]
    torch.set_num_threads(settings.threads)
    coordinator = RemoteCoordinator(ray.get_actor(job.coordinator))
    device = str(get_device()) if settings.gpus else "cpu"
    study = job.open_study()
    backend = SweepBackend(study, Store(Files(job.storage)), coordinator, device=device)
    wanted = set(config["cells"])
    work([cell for cell in study.cells if cell.key in wanted], backend)
