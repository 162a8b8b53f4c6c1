"""What Ray Tune runs: one Ray Train job that takes a bundle of cells through the temporal loop."""

import traceback
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from time_ray.cluster.board import Board
from time_ray.cluster.world import SweepWorld
from time_ray.core.errors import CellError
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Cell
from time_ray.loop import Row, run
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Datasets, resolve


@dataclass(frozen=True)
class Job:
    """What every trial of a sweep is told."""

    experiment: Experiment
    datasets: Datasets
    storage: str
    board: str  # the board actor's name
    shape: "Shape"
    scratch: str  # where Ray keeps its own files; nothing there is needed again


@dataclass(frozen=True)
class Shape:
    """What one trial occupies."""

    workers: int
    threads: int  # CPUs of a worker
    gpus: float  # GPUs of a worker
    max_failures: int


def work(cells: Sequence[Cell], world: SweepWorld, board: Board) -> None:
    """Every cell has run as far as it can. Cells of one trajectory go in step, so that they share what is in memory."""
    for group in _by_trajectory(cells):
        going = {cell: run(cell, world) for cell in group}
        while going:
            for cell in list(going):
                if world.ranks.agree(board.draining):
                    return
                if not _advance(cell, going[cell], world):
                    del going[cell]


def _advance(cell: Cell, rows: Iterator[Row], world: SweepWorld) -> bool:
    """Take the cell through one task; False once it is over, well or badly. A failing cell fails alone."""
    first = world.ranks.rank == 0
    if first:
        world.board.tell({"kind": "running", "cell": cell.key, "holder": world.holder})
    try:
        row = next(rows, None)
    except Exception as error:
        if world.ranks.size > 1 and not isinstance(error, CellError):
            raise  # the other workers may wait in a collective: only a restart of all of them is safe
        if first:
            trace = traceback.format_exc()
            world.board.tell({"kind": "failed", "cell": cell.key, "error": _one_line(error), "trace": trace})
        return False
    if first and row is None:
        world.board.tell({"kind": "done", "cell": cell.key})
    elif first and row is not None:
        world.board.tell({"kind": "row", "cell": cell.key, "task": row.task})
    return row is not None


def _by_trajectory(cells: Sequence[Cell]) -> list[list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.trajectory, []).append(cell)
    return list(groups.values())


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CellError) else f"{type(error).__name__}: {text}"


def tune_trial(config: dict[str, Any], *, job: Job, bundles: Sequence[Sequence[str]]) -> None:
    """The Tune trainable: start the bundle's workers with Ray Train and wait for them."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    shape = job.shape
    TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "cells": tuple(bundles[config["bundle"]])},
        scaling_config=ScalingConfig(
            num_workers=shape.workers,
            use_gpu=shape.gpus > 0,
            resources_per_worker={"CPU": shape.threads, **({"GPU": shape.gpus} if shape.gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if shape.gpus else "gloo"),
        run_config=RunConfig(
            name=f"bundle-{config['bundle']}-{uuid.uuid4().hex[:8]}",  # fresh: truth lies in our store
            storage_path=job.scratch,
            failure_config=FailureConfig(max_failures=shape.max_failures, controller_failure_limit=20),
        ),
    ).fit()


def train_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: the bundle's cells, on this worker's device."""
    import ray
    import torch
    from ray.train.torch import get_device

    from time_ray.cluster.actor import RemoteBoard

    job: Job = config["job"]
    torch.set_num_threads(job.shape.threads)
    board = RemoteBoard(ray.get_actor(job.board))
    device = str(get_device()) if job.shape.gpus else "cpu"
    study = resolve(job.experiment, job.datasets)
    world = SweepWorld(study, Store(Files(job.storage)), board, device=device)
    wanted = set(config["cells"])
    work([cell for cell in study.cells if cell.key in wanted], world, board)
