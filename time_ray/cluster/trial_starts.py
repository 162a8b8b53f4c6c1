"""How trials start on Ray: which have found a place, which are started again and why, and groups that cannot start."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.tune import Callback

from time_ray.cluster.trial_queue import TrialQueue
from time_ray.core.secrets import hidden

SLOW_SECONDS = 25.0  # for workers that have a place to meet


class TrialStarts(Callback):  # type: ignore[misc]  # Ray is not typed
    """Tells of trials that Ray Tune starts, and starts again.

    Args:
        queue: Hears which have a place, and which have lost it.
        say: Hears a line about one that is started again.

    """

    def __init__(self, queue: TrialQueue, say: Callable[[str], None]) -> None:
        self._queue = queue
        self._say = say

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: object) -> None:
        """See Callback."""
        del iteration, trials
        self._queue.placed(trial.config["trial"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: object) -> None:
        """See Callback."""
        del iteration, trials
        number, reason = trial.config["trial"], trial.get_pickled_error() or "its process was lost"
        self._queue.lost(number)
        self._say(f"trial {number} is started again ({one_line(reason)})")

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles it for a way of resuming that is not ours."""
        return {}


class GroupStarts(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]  # Ray is not typed
    """Tells, from the process of Ray Train's controller, why a group of workers starts again or does not start.

    Args:
        coordinator: The name of the coordinator's actor.
        trial: The trial's name, for people.
        workers: How many there are.

    """

    def __init__(self, coordinator: str, trial: str, workers: int) -> None:
        self._coordinator = coordinator
        self._trial = trial
        self._workers = workers

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """See ControllerCallback."""
        del previous_state
        error = getattr(current_state, "training_failed_error", None)
        if error is not None and not current_state.is_terminal():
            self._say(f"{self._trial} starts its {self._workers} workers again ({one_line(error)})")

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """See WorkerGroupCallback."""
        remedy = "see that there is room for all, and that each node's name leads to it (time-ray doctor)"
        late = f"the {self._workers} workers of {self._trial} have not met after {SLOW_SECONDS:.0f} s; {remedy}"
        timer = threading.Timer(SLOW_SECONDS, self._say, [late])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _say(self, text: str) -> None:
        import ray

        from time_ray.cluster.coordinator_actor import RemoteCoordinator
        from time_ray.events import Note

        RemoteCoordinator(ray.get_actor(self._coordinator)).emit(Note(text))


def one_line(error: object) -> str:
    """The last line of an error's text, which says what went wrong."""
    lines = [line.strip() for line in hidden(str(error)).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
