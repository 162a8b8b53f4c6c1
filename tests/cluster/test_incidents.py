"""What people hear of a cluster: nodes that are lost, trials that wait for a place, and groups that cannot start."""

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from time_ray.cluster import trial_starts
from time_ray.cluster.incidents import WAITING_SECONDS, HeadWatch, Incidents
from time_ray.cluster.room import Request
from time_ray.cluster.trial_queue import TrialQueue
from time_ray.trials import Trial

SIX = Request.of(workers=1, CPU=6)
NODES = [{"CPU": 6.0}]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def queue_of(count: int, clock: Clock) -> TrialQueue:
    trials = [Trial((str(n),), "toy", (str(n),), 1.0) for n in range(count)]
    return TrialQueue(trials, [SIX] * count, clock=clock)


def test_a_head_that_does_not_answer_is_told_once_and_so_is_its_return() -> None:
    said: list[str] = []
    head = socket.create_server(("127.0.0.1", 0))
    where = f"127.0.0.1:{head.getsockname()[1]}"
    watch = HeadWatch(where, said.append)
    watch.look()
    assert said == []
    head.close()
    for _ in range(2):
        watch.look()
    with socket.create_server(("127.0.0.1", int(where.rpartition(":")[2]))):
        for _ in range(2):
            watch.look()
    refused, back = said
    assert refused.startswith(f"Ray's head at {where} does not answer (")
    assert back == f"Ray's head at {where} answers again"


def test_a_lost_node_is_told_once() -> None:
    said: list[str] = []
    incidents = Incidents(said.append)
    for nodes in ({"1": "head", "2": "one"}, {"1": "head", "3": "new"}, {"1": "head", "3": "new"}):
        incidents.look(nodes, [], {})
    assert said == ["node one was lost; what ran there is started again where there is room"]


def test_waiting_is_told_and_told_again_ever_more_rarely() -> None:
    said: list[str] = []
    clock = Clock()
    incidents = Incidents(said.append, clock)
    for clock.now in range(0, 1000, 10):
        incidents.look({}, [SIX, SIX], {"CPU": 2.0})
    assert said[0] == "2 trials wait for 6 CPU; free on the whole cluster: 2 CPU and 0 GPU"
    assert len(said) == 5  # at 0, 60, 180, 420 and 900 s
    incidents.look({}, [], {})
    incidents.look({}, [SIX], {})
    assert said[-1] == "a trial waits for 6 CPU; free on the whole cluster: 0 CPU and 0 GPU"


def test_what_has_no_place_waits_whether_it_was_started_or_lost_its_own() -> None:
    clock = Clock()
    queue = queue_of(2, clock)
    assert queue.next(NODES) == 0
    clock.now = WAITING_SECONDS - 1
    assert queue.unplaced(WAITING_SECONDS) == []
    clock.now = WAITING_SECONDS
    assert queue.unplaced(WAITING_SECONDS) == [SIX]
    queue.placed(0)
    assert queue.unplaced(WAITING_SECONDS) == []
    queue.lost(0)
    clock.now += WAITING_SECONDS
    assert queue.unplaced(WAITING_SECONDS) == [SIX]


def test_trials_that_no_node_holds_any_longer_wait() -> None:
    clock = Clock()
    queue = queue_of(3, clock)
    queue.next(NODES)
    queue.ended(0)
    assert queue.next([]) is None
    assert queue.unplaced(WAITING_SECONDS) == []
    clock.now = WAITING_SECONDS
    assert queue.unplaced(WAITING_SECONDS) == [SIX, SIX]


def test_starts_are_timed_apart_for_new_processes_and_for_those_used_again() -> None:
    clock = Clock()
    queue = queue_of(3, clock)
    assert queue.start_ups() == (None, None)
    for took in (7.0, 1.0, 3.0):
        number = queue.next(NODES)
        assert number is not None
        clock.now += took
        queue.began(number)
        queue.ended(number)
    assert queue.start_ups() == (7.0, 2.0)


class Told(trial_starts.GroupStarts):
    """What the group would say is kept."""

    def __init__(self) -> None:
        super().__init__("coordinator", "trial 3", 2)
        self.said: list[str] = []

    def _say(self, text: str) -> None:
        self.said.append(text)


def state(error: Exception | None, *, terminal: bool = False) -> Any:
    return SimpleNamespace(training_failed_error=error, is_terminal=lambda: terminal)


def test_the_reason_of_a_failed_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Told()
    reason = RuntimeError("Traceback ...\n  File ...\nRuntimeError: Gloo connectFullMesh failed: timed out")
    group.after_controller_state_update(None, state(None))
    group.after_controller_state_update(None, state(reason))
    group.after_controller_state_update(None, state(reason, terminal=True))  # then the trial ends with it
    assert group.said == ["trial 3 starts its 2 workers again (RuntimeError: Gloo connectFullMesh failed: timed out)"]
    monkeypatch.setattr(trial_starts, "SLOW_SECONDS", 0.05)
    with group.on_worker_group_start():
        pass
    time.sleep(0.2)
    assert len(group.said) == 1
    with group.on_worker_group_start():
        time.sleep(0.3)
    assert group.said[1].startswith("the 2 workers of trial 3 have not met after 0 s; see that")
