"""What a trial does while another one makes what it needs."""

from collections.abc import Callable
from itertools import accumulate, pairwise, takewhile
from pathlib import Path

from time_ray import api
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import Leases, LocalCoordinator
from time_ray.cluster.work import work
from time_ray.events import CellDone, TrialEvent
from time_ray.realize import pauses


def test_a_trial_that_must_wait_does_something_else_first(new_experiment: Callable[..., Path], tmp_path: Path) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, init=["ft", "zs"], deploy="ft", technique="average"))
    waits, goes_on = opened.study.cells
    held = list(waits.walk())[1].expert.key
    done: list[str] = []

    class Watched(LocalCoordinator):
        """The other trial gives its lease back once this one has finished a cell."""

        def emit(self, event: TrialEvent) -> None:
            if isinstance(event, CellDone):
                done.append(event.cell)
                self.release(held, "another trial")

    coordinator = Watched()
    assert coordinator.lease(held, "another trial")
    work(opened.study.cells, SweepBackend(opened.study, opened.store, coordinator))
    assert done == [goes_on.key, waits.key]


def test_who_waits_long_looks_seldom_but_never_waits_more_than_seconds() -> None:
    looks = list(takewhile(lambda at: at < 3600, accumulate(pauses())))
    gaps = [later - before for before, later in pairwise([0.0, *looks])]
    assert sum(at < 1 for at in looks) >= 5
    assert all(gap <= 0.1 * (1 + at) for gap, at in zip(gaps, looks, strict=True))
    assert max(gaps) < 5.01
    assert len(looks) < 800  # of 36,000, were it ten a second


def test_a_lease_stands_until_it_is_released() -> None:
    coordinator = LocalCoordinator()
    ours = Leases(coordinator, "us")
    assert ours.acquire("expert")
    assert ours.acquire("scores")
    assert not Leases(coordinator, "them").acquire("expert")
    ours.release("expert")
    assert Leases(coordinator, "them").acquire("expert")
    assert not Leases(coordinator, "them").acquire("scores")
