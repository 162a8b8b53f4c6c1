"""What nobody would ever give back: resources that a killed Train controller, or a job that ended roughly, reserved.

Ray Train has groups of workers freed by another actor, which hears of them only once all workers have started, and
which may not find its cluster: a controller that is killed before that keeps their resources reserved. What a job had
the autoscaler hold ready stays with it, too, and keeps paid machines up.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE_SECONDS = 10.0
HELD = ("CREATED", "PENDING", "RESCHEDULING")


@contextmanager
def leaks_given_back() -> Iterator[None]:
    """Reservations of this job in which nothing runs, and nothing is about to, are given back while the block runs."""
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), daemon=True, name="leaks").start()
    try:
        yield
    finally:
        over.set()


def give_back_what_dead_jobs_left(say: Callable[[str], None]) -> None:
    """No job that has ended holds resources of the cluster that is connected; `say` hears what was given back."""
    from ray.exceptions import RayError
    from ray.util.state.exception import RayStateApiException

    try:
        for line in _given_back():
            say(f"{line}; given back")
    except (RayStateApiException, RayError, OSError):
        return  # without the State API nobody knows


def _given_back() -> list[str]:
    """What jobs that have ended still held, a line for each.

    What the autoscaler holds ready has no owner: it counts as left behind where no other job runs.
    """
    import ray
    from ray._private import state  # Ray has no public list of jobs without the dashboard's server

    ours = ray.get_runtime_context().get_job_id()
    alive = {job["JobID"] for job in state.jobs() if not job["IsDead"]} - {ours}
    groups = _groups_of_the_dead({*alive, ours})
    if groups:
        time.sleep(PAUSE_SECONDS)  # one that was just made has nothing in it yet
        groups = {group: job for group, job in _groups_of_the_dead({*alive, ours}).items() if group in groups}
    requests = [] if alive else _held_ready()
    _give_back(set(groups))
    lines = [f"placement group {group} of job {job}, which has ended, held resources" for group, job in groups.items()]
    if requests:
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[])
        lines.append(f"the autoscaler held ready what jobs that have ended asked for ({_summed(requests)})")
    return lines


def _groups_of_the_dead(alive: set[str]) -> dict[str, str]:
    return {group: job for group, job in _groups_in_disuse().items() if job not in alive}


def _watch(over: threading.Event) -> None:
    import ray
    from ray.exceptions import RayError
    from ray.util.state.exception import RayStateApiException

    job = ray.get_runtime_context().get_job_id()
    empty: set[str] = set()
    while not over.wait(PAUSE_SECONDS):
        try:
            found = {group for group, creator in _groups_in_disuse("CREATED").items() if creator == job}
            _give_back(empty & found)  # twice in a row, so it was not just made
            empty = found - empty
        except (RayStateApiException, RayError, OSError):
            continue  # Ray is busy, or ends: somebody else's to say


def _groups_in_disuse(*states: str) -> dict[str, str]:
    """Placement groups without an actor that lives or starts, with the jobs that made them."""
    from ray.util.state import list_actors, list_placement_groups

    groups = [
        group
        for state in states or HELD
        for group in list_placement_groups(filters=[("state", "=", state)], detail=True, limit=10_000)
    ]
    if not groups:
        return {}
    actors = list_actors(filters=[("state", "!=", "DEAD")], detail=True, limit=10_000)
    used = {actor.placement_group_id for actor in actors}
    meant = [group for group in groups if not group.is_detached]  # whoever detached a group wants it to stay
    return {g.placement_group_id: g.creator_job_id for g in meant if g.placement_group_id not in used}


def _give_back(groups: set[str]) -> None:
    from ray._raylet import PlacementGroupID  # Ray has no public way from the id of a group to the group
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for group in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))


def _held_ready() -> list[dict[str, float]]:
    """What the autoscaler was asked to hold ready, whoever asked."""
    from ray._private.worker import global_worker
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.autoscaler.v2.sdk import get_cluster_resource_state
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if not is_autoscaler_v2():
        found: list[dict[str, float]] = json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "[]")
        return found
    constraints = get_cluster_resource_state(global_worker.gcs_client).cluster_resource_constraints
    return [
        dict(request.request.resources_bundle)
        for constraint in constraints
        for request in constraint.resource_requests
        for _ in range(request.count)
    ]


def _summed(bundles: list[dict[str, float]]) -> str:
    names = sorted({name for bundle in bundles for name in bundle})
    return ", ".join(f"{sum(bundle.get(name, 0.0) for bundle in bundles):g} {name}" for name in names)
