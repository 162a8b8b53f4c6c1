"""Cells at work: through the temporal loop, those of a trajectory in step, each failing alone."""

import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.out_of_memory import IN_TRAINING, is_out_of_memory, told
from time_ray.cluster.ranks import AloneError
from time_ray.core.errors import CellError, StoreError, UserError
from time_ray.core.grid import Cell
from time_ray.core.secrets import hidden
from time_ray.events import CellDone, CellFailed, CellsRunning, TaskDone
from time_ray.loop import DeployedModel, run
from time_ray.merging import MergeError
from time_ray.realize import pauses
from time_ray.trials import by_trajectory

Moved = Literal["on", "waiting", "over"]
_END: Final = object()


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
    try:
        _take_turns(deque(_Trajectory(group, backend) for group in by_trajectory(cells).values()), backend)
    except BaseException:
        backend.give_up()
        raise


def _take_turns(going: "deque[_Trajectory]", backend: SweepBackend) -> None:
    current, waited, pause = None, 0, pauses()
    while going and not backend.ranks.broadcast(backend.coordinator.draining):
        if going[0] is not current:
            current = going[0]
            current.begin()
        moved = current.move()
        if moved == "over":
            going += going.popleft().apart()
        elif moved == "waiting":
            going.rotate(-1)
        if moved != "waiting":
            waited, pause = 0, pauses()
        elif (waited := waited + 1) >= len(going):
            waited = 0
            with backend.clock.at("waiting"):
                time.sleep(next(pause))


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
            model = next(self._models, _END)
            self._backend.settle()  # what it has made is there before anything is told, or another's turn comes
        except StoreError:
            raise  # nothing that is made now could be kept: no other cell fares better
        except Exception as error:  # noqa: BLE001 whatever it is, other cells go on
            self._backend.store.files.check_there()  # unless nothing can
            self._fail(error)
            return "over"
        if isinstance(model, DeployedModel):
            self._backend.emit(TaskDone(model.cell.key, model.task))
            return "on"
        if model is None:
            return "waiting"
        for key in self._left:
            self._backend.emit(CellDone(key))
        return "over"

    def apart(self) -> "Iterator[_Trajectory]":
        """What is left to try after a failure: each cell alone, so that a failing cell fails alone."""
        return (_Trajectory([cell], self._backend) for cell in self._left.values() if self._failed)

    def _fail(self, error: Exception) -> None:
        why = one_line(error.__cause__ if isinstance(error, AloneError) and error.__cause__ else error)
        failures = [CellFailed(key, why, hidden(traceback.format_exc())) for key in self._left]
        try:
            self._backend.ranks.agree_on(error)
        except AloneError:
            for failure in failures:
                self._backend.coordinator.emit(failure)  # whatever rank this is
            raise
        self._backend.settle()  # now that all workers are here
        if len(self._left) > 1:
            self._failed = True
            return
        for failure in failures:
            self._backend.emit(failure)


def one_line(error: BaseException) -> str:
    """Why a cell failed, as people read it."""
    if is_out_of_memory(error):
        return str(told(error, "", IN_TRAINING))
    text = hidden(" ".join(("; ".join(error.faults) if isinstance(error, MergeError) else str(error)).split()))
    return text if isinstance(error, (CellError, MergeError, UserError)) else f"{type(error).__name__}: {text}"
