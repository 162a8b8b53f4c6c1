"""The stages of a search on Ray Tune: trials of one seed after the other, as the sweep decides which are left."""

from collections.abc import Callable

from time_ray.cluster.messages import RunTrials, Trials
from time_ray.cluster.trial import Placed
from time_ray.cluster.trial_queue import TrialQueue


class Stages:
    """Trials that Ray Tune may ask for, by number. With a search more are added whenever all have ended.

    Args:
        asked: What the sweep wants.
        queue: Its first trials, to which later ones are added.
        more: What the sweep answers when it is asked for more, once; None until it has.

    Attributes:
        placed: What trials are told.

    """

    def __init__(self, asked: RunTrials, queue: TrialQueue, more: Callable[[], Trials | None]) -> None:
        self.placed: list[Placed] = []
        self._queue = queue
        self._more = more
        self._may_follow = asked.more
        self._is_asked = False
        self._place(asked.first)

    def over(self) -> bool:
        """Whether no trials will be added."""
        return not self._may_follow

    def none_left(self) -> bool:
        """Whether the sweep is to be asked for more now; not again before it has answered."""
        if not self._may_follow or self._is_asked or not self._queue.all_ended:
            return False
        self._is_asked = True
        return True

    def take_more(self) -> None:
        """What the sweep has answered meanwhile is in the queue; if it is nothing, none will follow."""
        found = self._more() if self._is_asked else None
        if found is None:
            return
        self._place(found)
        self._queue.add(found.trials, found.requests)
        self._may_follow = bool(found.trials)
        self._is_asked = False

    def _place(self, found: Trials) -> None:
        self.placed += [Placed(t.cells, r, found.lengths) for t, r in zip(found.trials, found.requests, strict=True)]
