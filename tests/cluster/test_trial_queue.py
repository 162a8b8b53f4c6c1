"""Which trial starts next."""

from time_ray.cluster.room import Request
from time_ray.cluster.trial_queue import TrialQueue
from time_ray.core.waiting import STARTS_AT_ONCE
from time_ray.trials import Trial

ONE = Request.of(workers=1, CPU=1)
FOUR = [{"CPU": 4.0}]


def trial(name: str, *chain: str) -> Trial:
    return Trial((name,), "toy", chain, float(len(chain)))


def started(queue: TrialQueue, nodes: list[dict[str, float]]) -> list[int]:
    """The trials that start now."""
    return list(iter(lambda: queue.next(nodes), None))


def test_trials_start_in_order_as_far_as_there_is_room() -> None:
    queue = TrialQueue([trial(f"cell {n}", f"expert {n}") for n in range(6)], [ONE] * 6)
    assert started(queue, FOUR) == [0, 1, 2, 3]
    queue.ended(2)
    assert started(queue, FOUR) == [4]
    assert started(queue, [{"CPU": 4.0}, {"CPU": 1.0}]) == [5]


def test_a_trial_starts_only_when_nobody_makes_what_it_needs_first() -> None:
    queue = TrialQueue(
        [trial("ft", "1", "2", "3"), trial("ema", "1", "4", "5"), trial("other seed", "6"), trial("scores only")],
        [ONE] * 4,
    )
    assert started(queue, FOUR) == [0, 2, 3]  # "ema" would wait for expert 1, and hold a CPU meanwhile
    queue.trained("1")
    assert started(queue, FOUR) == [1]


def test_what_a_trial_leaves_another_one_may_make() -> None:
    queue = TrialQueue([trial("fails", "1", "2"), trial("goes on", "1", "3")], [ONE] * 2)
    assert started(queue, FOUR) == [0]
    queue.ended(0)
    assert started(queue, FOUR) == [1]


def test_two_that_make_the_same_are_both_done_with_it() -> None:
    """The second began once the first thing it shares was made; that the first ends changes nothing for the third."""
    queue = TrialQueue([trial("a", "1", "2", "3"), trial("b", "1", "4", "3"), trial("c", "3")], [ONE] * 3)
    assert started(queue, FOUR) == [0]
    queue.trained("1")
    assert started(queue, FOUR) == [1]
    queue.ended(0)
    assert started(queue, FOUR) == []  # "b" still has expert 3 before it
    queue.trained("3")
    assert started(queue, FOUR) == [2]


def test_small_trials_use_the_room_that_a_large_one_does_not_fit_into() -> None:
    large = Request.of(workers=1, CPU=3)
    trials = [trial("a", "1"), trial("b", "2"), trial("c", "3")]
    queue = TrialQueue(trials, [large, large, ONE])
    assert started(queue, FOUR) == [0, 2]
    queue.ended(0)
    assert started(queue, FOUR) == [1]


def test_no_more_at_once_than_asked_for_even_if_there_is_no_room_yet() -> None:
    queue = TrialQueue([trial(f"cell {n}") for n in range(5)], [ONE] * 5, limit=3)
    assert started(queue, []) == [0, 1, 2]  # a cluster that grows hears of them
    queue.ended(1)
    assert started(queue, FOUR) == [3]


def test_starts_are_bounded() -> None:
    many = 3 * STARTS_AT_ONCE
    queue = TrialQueue([trial(f"cell {n}") for n in range(many)], [ONE] * many)
    nodes = [{"CPU": float(many)}]
    assert len(started(queue, nodes)) == STARTS_AT_ONCE
    queue.began(0)
    queue.began(1)
    assert len(started(queue, nodes)) == 2


def test_the_place_of_a_long_trial_that_waits_is_kept() -> None:
    """Whatever ends last is not to be late; others may use the place of a trial that is not long beside them."""
    chains = [("1", "2"), ("1", "3"), ("4",), ("5",), ("6",), ("7",)]
    for second, first in ((8.0, [0]), (1.0, [0, 2])):
        costs = (9.0, second, 1.0, 1.0, 1.0, 1.0)
        trials = [Trial(chain, "toy", chain, cost) for chain, cost in zip(chains, costs, strict=True)]
        for queue, nodes in ((TrialQueue(trials, [ONE] * 6), [{"CPU": 2.0}]), (TrialQueue(trials, [ONE] * 6, 2), [])):
            assert started(queue, nodes) == first
            queue.trained("1")
            assert started(queue, nodes) == [1][: 2 - len(first)]
