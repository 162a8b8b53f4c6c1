"""What happens in a sweep, as those who watch it are told: one frozen dataclass a kind, and the unions of all kinds.

Whoever listens handles every kind: a `match` that ends in `assert_never`, so that mypy names a kind without a listener.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True)
class CellsRunning:
    """A trial is at these cells, which share their experts; what it was at before, it has left."""

    cells: tuple[str, ...]  # keys
    holder: str  # the trial, by a name that no other has
    node: str = ""  # the host that its first worker runs on
    kind: Literal["cells_running"] = field(default="cells_running", repr=False)


@dataclass(frozen=True)
class TaskDone:
    """A cell has its scores after a task; task 0 is the base, before any training."""

    cell: str
    task: int
    kind: Literal["task_done"] = field(default="task_done", repr=False)


@dataclass(frozen=True)
class CellDone:
    """A cell has all its scores, and its final weights are kept."""

    cell: str
    kind: Literal["cell_done"] = field(default="cell_done", repr=False)


@dataclass(frozen=True)
class CellFailed:
    """A cell cannot go on; others do."""

    cell: str
    error: str  # one line
    traceback: str = ""  # empty where its trial was lost
    kind: Literal["cell_failed"] = field(default="cell_failed", repr=False)


@dataclass(frozen=True)
class ExpertTrained:
    """An expert was trained, and is kept."""

    expert: str  # key
    steps: int
    seconds: float
    kind: Literal["expert_trained"] = field(default="expert_trained", repr=False)


@dataclass(frozen=True)
class ModelEvaluated:
    """The scores of a model were measured, and are kept. Several cells may serve this model."""

    seconds: float
    kind: Literal["model_evaluated"] = field(default="model_evaluated", repr=False)


@dataclass(frozen=True)
class Note:
    """Something that people should know."""

    text: str
    kind: Literal["note"] = field(default="note", repr=False)


@dataclass(frozen=True)
class Planned:
    """What the sweep has to do: what is stored already is not counted."""

    trainings: int
    evaluations: int
    cells: int
    kind: Literal["planned"] = field(default="planned", repr=False)


@dataclass(frozen=True)
class Status:
    """What the sweep itself is doing now."""

    text: str
    kind: Literal["status"] = field(default="status", repr=False)


TrialEvent: TypeAlias = CellsRunning | TaskDone | CellDone | CellFailed | ExpertTrained | ModelEvaluated | Note
Event: TypeAlias = TrialEvent | Planned | Status
