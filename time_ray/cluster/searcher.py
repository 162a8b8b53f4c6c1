"""Ray Tune asks here for the next trial."""

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from time_ray.cluster.room import Node
from time_ray.cluster.trial import Placed
from time_ray.cluster.trial_queue import TrialQueue


class TrialSearcher(Searcher):  # type: ignore[misc]  # Ray is not typed
    """The queue of trials, as Ray Tune asks for it.

    Args:
        queue: Which trial is next.
        trials: What trials are told: by number, as the queue has them.
        nodes: What the nodes that are there now hold.
        draining: Whether no further trial shall start.
        over: Whether no trials will be added to those of the queue.

    """

    def __init__(
        self,
        queue: TrialQueue,
        trials: Sequence[Placed],
        nodes: Callable[[], Sequence[Node]],
        draining: Callable[[], bool],
        over: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._queue = queue
        self._trials = trials
        self._nodes = nodes
        self._draining = draining
        self._over = over
        self._numbers: dict[str, int] = {}

    def set_search_properties(self, *_: object, **__: object) -> bool:
        """See Searcher: there is no metric to be told of."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """See Searcher: None is "not now"."""
        if self._draining() or (self._over() and self._queue.all_ended):
            return str(Searcher.FINISHED)
        number = self._queue.next(self._nodes())
        if number is None:
            return None
        self._numbers[trial_id] = number
        return {"trial": number, "placed": self._trials[number]}

    def on_trial_complete(self, trial_id: str, *_: object, **__: object) -> None:
        """See Searcher."""
        self._queue.ended(self._numbers.pop(trial_id))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles it for a way of resuming that is not ours, and the queue is alive."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """See Searcher: what is done is known from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """See Searcher: what is done is known from the store."""
