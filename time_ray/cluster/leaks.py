"""Resources that a killed Train controller has reserved and that nobody would ever give back.

Ray Train has them freed by another actor, which hears of them only once all workers have started: a controller that
is killed before that keeps their resources reserved for as long as the job lives, and the trial waits for ever.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE_SECONDS = 10.0


@contextmanager
def leaks_given_back() -> Iterator[None]:
    """Reservations of this job in which nothing runs, and nothing is about to, are given back while the block runs."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), daemon=True, name="leaks").start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event) -> None:
    from ray.exceptions import RayError
    from ray.util.state.exception import RayStateApiException

    empty: set[str] = set()
    while not over.wait(PAUSE_SECONDS):
        try:
            found = _empty_groups()
            _give_back(empty & found)  # twice in a row, so it was not just made
            empty = found - empty
        except (RayStateApiException, RayError, OSError):
            continue  # Ray is busy, or ends: somebody else's to say


def _empty_groups() -> set[str]:
    """Placement groups of this job without an actor that lives or starts."""
    import ray
    from ray.util.state import list_actors, list_placement_groups

    job = ray.get_runtime_context().get_job_id()
    groups = list_placement_groups(filters=[("creator_job_id", "=", job), ("state", "=", "CREATED")], detail=True)
    actors = list_actors(filters=[("job_id", "=", job), ("state", "!=", "DEAD")], detail=True, limit=10_000)
    used = {actor.placement_group_id for actor in actors}
    return {group.placement_group_id for group in groups} - used


def _give_back(groups: set[str]) -> None:
    from ray._raylet import PlacementGroupID  # Ray has no public way from the id of a group to the group
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for group in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
