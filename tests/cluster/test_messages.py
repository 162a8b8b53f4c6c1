"""Messages between a sweep and its Ray driver: every kind comes back as it was sent, and no other is taken."""

from typing import Any, get_args

import pytest

from time_ray.cluster.messages import (
    COMMANDS,
    CONNECT,
    DRIVER_EVENTS,
    Command,
    Connect,
    Drain,
    DriverEvent,
    MoreTrials,
    NoneLeft,
    RayLost,
    Ready,
    Refused,
    RunTrials,
    RunTuning,
    StartUps,
    Trials,
    TrialsEnded,
    TuningEnded,
    from_line,
    to_line,
)
from time_ray.cluster.room import Request
from time_ray.cluster.trial import Scratch
from time_ray.core.parameter_range import Range
from time_ray.core.tuning import Candidate
from time_ray.events import CellDone, CellFailed, CellsRunning, ExpertTrained, ModelEvaluated, Note, TaskDone
from time_ray.trials import Trial

JOB = bytes(range(256))  # no text
TRIAL = Trial(("a", "b"), "mini-tiny", ("expert",), 0.1 + 0.2)
REQUEST = Request.of(workers=2, CPU=1, GPU=0.25)
RANGE = Range(low=0.05, high=0.9, log=True)
TRIALS = Trials((TRIAL,), (REQUEST,), lengths=False)
SENT: list[tuple[Any, Any]] = [
    (CONNECT, Connect(threads=2, groups=True, folder="ray files")),
    (COMMANDS, RunTrials(TRIALS, True, 3, 1, JOB, "coordinator", Scratch("ray/tiny", "s3://bucket/runs"))),
    (COMMANDS, RunTrials(Trials((), ()), False, None, 0, JOB, "coordinator", Scratch("scratch"))),
    (COMMANDS, MoreTrials(TRIALS)),
    (DRIVER_EVENTS, NoneLeft()),
    (
        COMMANDS,
        RunTuning("a", {"keep": RANGE}, {"keep": 0.2}, 40, 4, 0, REQUEST, 3, JOB, "coordinator", Scratch("x")),
    ),
    (COMMANDS, RunTuning("b", {}, None, 1, 1, 0, REQUEST, 0, JOB, "coordinator", Scratch("x"))),
    (COMMANDS, Drain()),
    (DRIVER_EVENTS, Ready(({"CPU": 2.0, "node:127.0.0.1": 1.0}, {"GPU": 0.5}), can_grow=True)),
    (DRIVER_EVENTS, StartUps(7.0, None)),
    (DRIVER_EVENTS, TrialsEnded(("lost", "out of memory"))),
    (DRIVER_EVENTS, TuningEnded((Candidate({"keep": 0.1 + 0.2}, 52.6), Candidate({"keep": 0.5}, None, "it failed")))),
    (DRIVER_EVENTS, Refused(("RAY_ADDRESS: nothing answers",))),
    (DRIVER_EVENTS, RayLost("Ray's raylet ended")),
    (DRIVER_EVENTS, CellsRunning(("a", "b"), "holder")),
    (DRIVER_EVENTS, TaskDone("a", 0)),
    (DRIVER_EVENTS, CellDone("a")),
    (DRIVER_EVENTS, CellFailed("a", "the loss is [/nan]", "Traceback:\n  two lines, and Θ\n")),
    (DRIVER_EVENTS, ExpertTrained("key", 20, 0.1 + 0.2)),
    (DRIVER_EVENTS, ModelEvaluated(1e-9)),
    (DRIVER_EVENTS, Note("decoded images are kept in /data")),
]


@pytest.mark.parametrize(("kinds", "message"), SENT, ids=lambda value: getattr(value, "kind", ""))
def test_a_message_comes_back_as_it_was_sent(kinds: Any, message: Any) -> None:
    line = to_line(message, kinds)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    found = from_line(line, kinds)
    assert found == message
    assert type(found) is type(message)


def test_every_kind_is_sent_above() -> None:
    assert {type(message) for _, message in SENT} == {Connect, *get_args(Command), *get_args(DriverEvent)}


@pytest.mark.parametrize(
    "line", [b'{"kind": "gossip"}\n', b'{"kind": "ready"}\n', b'{"capacity": 4}\n', to_line(Drain(), COMMANDS), b"{"]
)
def test_what_is_none_of_these_kinds_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        from_line(line, DRIVER_EVENTS)
