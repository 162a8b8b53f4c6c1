"""Stages of a sweep that are planned one after the other: whoever watches it hears of all work together."""

from collections import Counter
from collections.abc import Callable

from time_ray.events import CellDone, Event, ExpertTrained, ModelEvaluated, Planned


class PlanStages:
    """Passes on events; a plan is told together with what the stages before it have made.

    Args:
        watch: Called with every event.

    """

    def __init__(self, watch: Callable[[Event], None]) -> None:
        self._watch = watch
        self._made = Counter[type[Event]]()
        self._before = Counter[type[Event]]()

    def next(self) -> None:
        """Another stage begins."""
        self._before = self._made.copy()

    def __call__(self, event: Event) -> None:
        """Pass on the event."""
        self._made[type(event)] += 1
        if isinstance(event, Planned):
            before = self._before
            event = Planned(
                before[ExpertTrained] + event.trainings,
                before[ModelEvaluated] + event.evaluations,
                before[CellDone] + event.cells,
            )
        self._watch(event)
