"""The board as a Ray actor, and the trial's end of it."""

from typing import Any

import ray

from time_ray.cluster.coordinator import Event, LocalBoard

BoardActor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)(LocalBoard)


class RemoteBoard:
    """Board, answered by the actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def claim(self, key: str, holder: str) -> bool:
        """See Board."""
        return bool(ray.get(self._actor.claim.remote(key, holder)))

    def release(self, key: str, holder: str) -> None:
        """See Board."""
        ray.get(self._actor.release.remote(key, holder))

    def renew(self, holder: str) -> None:
        """See Board."""
        ray.get(self._actor.renew.remote(holder))

    def tell(self, event: Event) -> None:
        """See Board."""
        ray.get(self._actor.tell.remote(event))

    def draining(self) -> bool:
        """See Board."""
        return bool(ray.get(self._actor.draining.remote()))

    def drain(self) -> None:
        """See LocalBoard."""
        ray.get(self._actor.drain.remote())

    def events(self) -> list[Event]:
        """See LocalBoard."""
        told: list[Event] = ray.get(self._actor.events.remote())
        return told
