"""The coordinator as a Ray actor, and the trial's end of it."""

from collections.abc import Collection
from typing import Any

import ray

from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.events import TrialEvent

CoordinatorActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)(LocalCoordinator)


class RemoteCoordinator:
    """Coordinator, answered by the actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def lease(self, name: str, holder: str) -> bool:
        """See Coordinator."""
        return bool(ray.get(self._actor.lease.remote(name, holder)))

    def release(self, name: str, holder: str) -> None:
        """See Coordinator."""
        ray.get(self._actor.release.remote(name, holder))

    def renew(self, holder: str) -> None:
        """See Coordinator."""
        ray.get(self._actor.renew.remote(holder))

    def emit(self, event: TrialEvent) -> None:
        """See Coordinator."""
        ray.get(self._actor.emit.remote(event))

    def draining(self) -> bool:
        """See Coordinator."""
        return bool(ray.get(self._actor.draining.remote()))

    def failed(self, cells: Collection[str]) -> frozenset[str]:
        """See Coordinator."""
        found: frozenset[str] = ray.get(self._actor.failed.remote(list(cells)))
        return found

    def drain(self) -> None:
        """See LocalCoordinator."""
        ray.get(self._actor.drain.remote())

    def events(self) -> list[TrialEvent]:
        """See LocalCoordinator."""
        emitted: list[TrialEvent] = ray.get(self._actor.events.remote())
        return emitted
