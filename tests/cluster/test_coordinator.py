"""The coordinator: one maker an expert, as long as it lives."""

import pytest

from time_ray.cluster import coordinator
from time_ray.cluster.coordinator import LEASE_SECONDS, LocalCoordinator
from time_ray.events import Note


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(coordinator, "time", found)
    return found


def test_an_expert_has_one_maker(clock: Clock) -> None:
    shared = LocalCoordinator()
    assert shared.lease("expert", "one")
    assert not shared.lease("expert", "other")
    assert shared.lease("expert", "one")
    assert shared.lease("another", "other")
    shared.release("expert", "other")  # not theirs to release
    assert not shared.lease("expert", "other")
    shared.release("expert", "one")
    assert shared.lease("expert", "other")


def test_a_maker_that_died_holds_nothing_for_long(clock: Clock) -> None:
    shared = LocalCoordinator()
    assert shared.lease("expert", "one")
    clock.now = LEASE_SECONDS - 1
    shared.renew("one")
    clock.now = 2 * LEASE_SECONDS - 2
    assert not shared.lease("expert", "other")
    clock.now = 2 * LEASE_SECONDS
    assert shared.lease("expert", "other")


def test_events_are_told_once(clock: Clock) -> None:
    shared = LocalCoordinator()
    shared.emit(Note("a"))
    shared.emit(Note("b"))
    assert shared.events() == [Note("a"), Note("b")]
    assert shared.events() == []


def test_draining_stays(clock: Clock) -> None:
    shared = LocalCoordinator()
    assert not shared.draining()
    shared.drain()
    assert shared.draining()
