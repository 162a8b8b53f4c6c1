"""What a sweep and its Ray driver (see ray_driver.py) tell each other: typed messages, each a line of JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import Base64Bytes, Discriminator, TypeAdapter

from time_ray.cluster.room import Request
from time_ray.cluster.trial import Scratch
from time_ray.core.parameter_range import Range
from time_ray.core.tuning import Candidate
from time_ray.events import TrialEvent
from time_ray.trials import Trial

T = TypeVar("T")


@dataclass(frozen=True)
class Connect:
    """How to connect to Ray: what the driver is told first.

    Attributes:
        threads: The most that a worker has.
        groups: Whether some trials have several workers.
        folder: For Ray's files.

    """

    threads: int
    groups: bool
    folder: str
    kind: Literal["connect"] = field(default="connect", repr=False)


@dataclass(frozen=True)
class Trials:
    """Trials, the first of which start first; what each of them holds; and whether they score at other lengths."""

    trials: tuple[Trial, ...]
    requests: tuple[Request, ...]
    lengths: bool = True


@dataclass(frozen=True)
class RunTrials:
    """Run these trials. Of a search, more may follow: see NoneLeft."""

    first: Trials
    more: bool
    limit: int | None  # at once
    max_failures: int  # restarts of a trial whose processes or node were lost
    job: Base64Bytes  # a pickled Job: only workers open it
    coordinator: str  # the name of the coordinator's actor, which is to be made
    scratch: Scratch
    kind: Literal["run_trials"] = field(default="run_trials", repr=False)


@dataclass(frozen=True)
class MoreTrials:
    """The answer to NoneLeft: run these as well, or end if there are none."""

    trials: Trials
    kind: Literal["more_trials"] = field(default="more_trials", repr=False)


@dataclass(frozen=True)
class RunTuning:
    """Find the best parameters of a technique, by candidates that are merged and scored."""

    tuning: str  # its key in the job's study
    ranges: Mapping[str, Range]
    start: Mapping[str, float] | None
    candidates: int
    at_once: int
    seed: int
    request: Request  # what a candidate holds
    max_failures: int  # restarts of a candidate whose process or node was lost
    job: Base64Bytes  # a pickled Job
    coordinator: str  # the name of the coordinator's actor, which is to be made
    scratch: Scratch
    kind: Literal["run_tuning"] = field(default="run_tuning", repr=False)


@dataclass(frozen=True)
class Drain:
    """Let trials finish what they are at, and stop. It may come at any time."""

    kind: Literal["drain"] = field(default="drain", repr=False)


@dataclass(frozen=True)
class Ready:
    """Ray is connected, and trials can be run."""

    nodes: tuple[dict[str, float], ...]  # what each holds, by Ray's names
    can_grow: bool  # what does not fit now may fit later
    dashboard: str = ""  # its address, if there is one
    kind: Literal["ready"] = field(default="ready", repr=False)


@dataclass(frozen=True)
class NoneLeft:
    """All trials so far have ended, and all that they told was passed on: are there more?"""

    kind: Literal["none_left"] = field(default="none_left", repr=False)


@dataclass(frozen=True)
class TrialsEnded:
    """All trials that were asked for have ended; the errors are of those that did so early."""

    errors: tuple[str, ...]
    kind: Literal["trials_ended"] = field(default="trials_ended", repr=False)


@dataclass(frozen=True)
class TuningEnded:
    """All candidates that were asked for have ended, or were not begun as the sweep is to stop; in order."""

    candidates: tuple[Candidate, ...]
    kind: Literal["tuning_ended"] = field(default="tuning_ended", repr=False)


@dataclass(frozen=True)
class StartUps:
    """What trials of a round took until they were at work: mean seconds in new processes, and in those used again."""

    first: float | None
    later: float | None
    kind: Literal["start_ups"] = field(default="start_ups", repr=False)


@dataclass(frozen=True)
class Refused:
    """Ray cannot be used as the user wants it; each fault is one line. The driver ends."""

    faults: tuple[str, ...]
    kind: Literal["refused"] = field(default="refused", repr=False)


@dataclass(frozen=True)
class RayLost:
    """Ray, or a part of it that nothing goes on without, has ended. So does the driver."""

    reason: str
    kind: Literal["ray_lost"] = field(default="ray_lost", repr=False)


Command: TypeAlias = RunTrials | MoreTrials | RunTuning | Drain
DriverEvent: TypeAlias = TrialEvent | Ready | StartUps | NoneLeft | TrialsEnded | TuningEnded | Refused | RayLost

CONNECT: TypeAdapter[Connect] = TypeAdapter(Connect)
COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Discriminator("kind")])
DRIVER_EVENTS: TypeAdapter[DriverEvent] = TypeAdapter(Annotated[DriverEvent, Discriminator("kind")])


def to_line(message: T, kinds: TypeAdapter[T]) -> bytes:
    """The message as a line of JSON."""
    return kinds.dump_json(message) + b"\n"


def from_line(line: bytes, kinds: TypeAdapter[T]) -> T:
    """The message that a line holds.

    Raises:
        ValueError: The line is no message of these kinds.

    """
    return kinds.validate_json(line)
