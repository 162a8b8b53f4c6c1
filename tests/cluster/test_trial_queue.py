"""Which trial starts next."""

from time_ray.cluster.room import Request
from time_ray.cluster.trial_queue import PATIENCE_SECONDS, TrialQueue
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


def run_until_large_starts(queue: TrialQueue, nodes: list[dict[str, float]], large: int, running: list[int]) -> int:
    """How many trials end, the oldest first and others taking their place, until the large one starts."""
    for ended in range(100):
        running += started(queue, nodes)
        if large in running:
            return ended
        queue.ended(running.pop(0))
    raise AssertionError("it starves")


def test_small_trials_do_not_keep_a_large_one_waiting() -> None:
    """It becomes ready when small ones hold all the room, and starts once enough of these ended, not once all did."""
    large = Request.of(workers=2, CPU=2)
    many = [trial(f"small {n}", f"expert {n}") for n in range(50)]
    queue = TrialQueue([trial("first", "1"), trial("large", "1", "2"), *many], [ONE, large, *[ONE] * 50])
    running = started(queue, FOUR)
    assert running == [0, 2, 3, 4]
    queue.trained("1")  # what the large one waited for
    assert run_until_large_starts(queue, FOUR, 1, running) == 4


def test_a_large_trial_that_waits_for_another_large_one_leaves_the_rest_to_small_ones() -> None:
    large = Request.of(workers=1, CPU=3)
    small = [trial(f"small {n}", f"expert {n}") for n in range(20)]
    queue = TrialQueue([trial("a", "1"), trial("b", "2"), *small], [large, large, *[ONE] * 20])
    running = started(queue, FOUR)
    for _ in range(10):  # small ones come and go beside the first
        queue.ended(running.pop())
        running += started(queue, FOUR)
        assert len(running) == 2
    queue.ended(0)
    assert started(queue, FOUR) == [1]


def test_trials_that_want_other_things_do_not_starve_each_other() -> None:
    """GPUs are no measure for one that wants CPUs: neither covers the other."""
    gpu, cpus = Request.of(workers=1, CPU=1, GPU=1), Request.of(workers=1, CPU=4)
    many = [trial(f"gpu {n}", f"expert {n}") for n in range(20)]
    queue = TrialQueue([trial("first", "1"), trial("cpus", "1", "2"), *many], [gpu, cpus, *[gpu] * 20])
    nodes = [{"CPU": 4.0, "GPU": 4.0}]
    running = started(queue, nodes)
    assert running == [0, 2, 3, 4]
    queue.trained("1")
    assert run_until_large_starts(queue, nodes, 1, running) == 4


def test_a_choosy_trial_finds_its_node_whatever_the_others_may_use() -> None:
    anywhere, h100 = Request.of(workers=1, GPU=1), Request.of(workers=1, GPU=1, **{"accelerator_type:H100": 0.001})
    nodes = [{"GPU": 2.0, "accelerator_type:H100": 1.0}, {"GPU": 2.0, "accelerator_type:L4": 1.0}]
    trials = [trial(f"{n}", f"expert {n}") for n in range(6)]
    queue = TrialQueue(trials, [anywhere, anywhere, h100, h100, h100, anywhere])
    assert started(queue, nodes) == [0, 1, 2, 3]
    queue.ended(0)
    assert started(queue, nodes) == [5]  # the third H100 trial has no H100, and would not get this place
    queue.ended(2)
    assert started(queue, nodes) == [4]


def test_nobody_waits_for_what_no_node_holds() -> None:
    huge = Request.of(workers=1, CPU=64)
    queue = TrialQueue([trial("huge", "1"), trial("a", "2"), trial("b", "3")], [huge, ONE, ONE])
    assert started(queue, FOUR) == [1, 2]
    assert started(queue, [*FOUR, {"CPU": 64.0}]) == [0]  # the cluster has grown


def test_where_room_is_in_pieces_small_trials_make_place() -> None:
    """By the count four CPUs of eight are free, but no node has them, so that the large one does not come to run."""
    large, now = Request.of(workers=1, CPU=4), [0.0]
    trials = [trial("large", "1"), *(trial(f"small {n}", f"expert {n}") for n in range(30))]
    queue = TrialQueue(trials, [large, *[ONE] * 30], clock=lambda: now[0])
    running = started(queue, FOUR * 2)
    assert running == [0, 1, 2, 3, 4]
    for number in running[1:]:
        queue.began(number)
    queue.ended(1)
    assert started(queue, FOUR * 2) == [5]  # it may still be on its way
    queue.began(5)
    now[0] = 1 + PATIENCE_SECONDS
    queue.ended(2)
    assert started(queue, FOUR * 2) == []
    queue.began(0)
    assert started(queue, FOUR * 2) == [6]


def test_where_nothing_of_ours_is_in_the_way_small_trials_go_on() -> None:
    """Somebody else's work holds the room that the large one was to have."""
    large, now = Request.of(workers=1, CPU=3), [0.0]
    queue = TrialQueue([trial("large", "1"), trial("small", "2")], [large, ONE], clock=lambda: now[0])
    assert queue.next(FOUR) == 0
    now[0] = 1 + PATIENCE_SECONDS
    assert queue.next(FOUR) == 1


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
