"""Cells at work: through the temporal loop, those of a trajectory in step, each failing alone."""

import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.ranks import AloneError
from time_ray.core.errors import CellError, StoreError, UserError
from time_ray.core.grid import Cell
from time_ray.events import CellDone, CellFailed, CellsRunning, TaskDone
from time_ray.loop import run
from time_ray.merging import MergeError
from time_ray.realize import PAUSE_SECONDS
from time_ray.trials import by_trajectory

MORE_MEMORY = "raise run.accumulate, set run.recompute=true, or spread the batch over more run.workers"

Moved = Literal["on", "waiting", "over"]


def work(cells: Sequence[Cell], backend: SweepBackend) -> None:
    """Every cell has run as far as it can, and the coordinator has heard how far that is.

    A trajectory goes on until it must wait for another trial; then the next does.

    Raises:
        StoreError: The storage cannot be read or written just now: no cell can go on.
        AloneError: One of several workers failed, and has told why its cells did: all workers must start again.
        ContactLostError: Another worker is lost: all must start again.

    """
    failed = backend.ranks.broadcast(lambda: backend.coordinator.failed([cell.key for cell in cells]))
    cells = [cell for cell in cells if cell.key not in failed]
    going = deque(_Trajectory(group, backend) for group in by_trajectory(cells).values())
    current, waited = None, 0
    while going and not backend.ranks.broadcast(backend.coordinator.draining):
        if going[0] is not current:
            current = going[0]
            current.begin()
        moved = current.move()
        if moved == "over":
            going += going.popleft().apart()
        elif moved == "waiting":
            going.rotate(-1)
        waited = waited + 1 if moved == "waiting" else 0
        if waited >= len(going) > 0:
            time.sleep(PAUSE_SECONDS)


class _Trajectory:
    """Cells that share a chain of experts: they go in step, so that they share what is in memory."""

    def __init__(self, cells: Sequence[Cell], backend: SweepBackend) -> None:
        self._left = {cell.key: cell for cell in cells}
        self._models = run(cells, backend)
        self._backend = backend
        self._failed = False

    def begin(self) -> None:
        """It is this trajectory's turn."""
        self._backend.emit(CellsRunning(tuple(self._left), self._backend.holder, socket.gethostname()))

    def move(self) -> Moved:
        """Go on to the next deployed model of a cell."""
        try:
            model = next(self._models)
        except StopIteration:
            for key in self._left:
                self._backend.emit(CellDone(key))
            return "over"
        except StoreError:
            raise  # nothing that is made now could be kept: no other cell fares better
        except Exception as error:  # noqa: BLE001 whatever it is, other cells go on
            self._backend.store.files.check_there()  # unless nothing can
            self._fail(error)
            return "over"
        if model is None:
            return "waiting"
        self._backend.emit(TaskDone(model.cell.key, model.task))
        return "on"

    def apart(self) -> "Iterator[_Trajectory]":
        """What is left to try after a failure: each cell alone, so that a failing cell fails alone."""
        return (_Trajectory([cell], self._backend) for cell in self._left.values() if self._failed)

    def _fail(self, error: Exception) -> None:
        failures = [CellFailed(key, one_line(error), traceback.format_exc()) for key in self._left]
        try:
            self._backend.ranks.agree_on(error)
        except AloneError:
            for failure in failures:
                self._backend.coordinator.emit(failure)  # whatever rank this is
            raise
        if len(self._left) > 1:
            self._failed = True
            return
        for failure in failures:
            self._backend.emit(failure)


def one_line(error: Exception) -> str:
    """Why a cell failed, as people read it."""
    text = " ".join(("; ".join(error.faults) if isinstance(error, MergeError) else str(error)).split())
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in text:
        return f"out of memory ({text.partition('. ')[0]}); {MORE_MEMORY}"
    return text if isinstance(error, (CellError, MergeError, UserError)) else f"{type(error).__name__}: {text}"
