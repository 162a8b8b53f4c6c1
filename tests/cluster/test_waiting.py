"""What a trial does while another one makes what it needs."""

from collections.abc import Callable
from pathlib import Path

from time_ray import api
from time_ray.cluster.backend import SweepWorld
from time_ray.cluster.bundle import work
from time_ray.cluster.coordinator import Event, LocalBoard
from time_ray.cluster.leases import Claims


def test_a_trial_that_must_wait_does_something_else_first(new_experiment: Callable[..., Path], tmp_path: Path) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, init=["ft", "zs"], deploy="ft", technique="average"))
    waits, goes_on = opened.study.cells
    held = list(waits.walk())[1].expert.key
    done: list[str] = []

    class Watched(LocalBoard):
        """The other trial gives its claim back once this one has finished a cell."""

        def tell(self, event: Event) -> None:
            if event["kind"] == "done":
                done.append(event["cell"])
                self.release(held, "another trial")

    board = Watched()
    assert board.claim(held, "another trial")
    work(opened.study.cells, SweepWorld(opened.study, opened.store, board), board)
    assert done == [goes_on.key, waits.key]


def test_a_claim_stands_until_it_is_released() -> None:
    board = LocalBoard()
    ours = Claims(board, "us")
    assert ours.take("expert")
    assert ours.take("scores")
    assert not Claims(board, "them").take("expert")
    ours.release("expert")
    assert Claims(board, "them").take("expert")
    assert not Claims(board, "them").take("scores")
