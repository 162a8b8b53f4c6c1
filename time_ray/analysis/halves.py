"""What cells score on one half of the test images, or on all of them, as they are and at other lengths."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

from time_ray.core.criterion import Over, value
from time_ray.core.grid import Setting
from time_ray.core.metrics import AccuracyHistory
from time_ray.core.outcomes import accuracies_of
from time_ray.per_image import Half, Lazy, PerImage
from time_ray.results import CellResult, TaskResult
from time_ray.store.store import Store

Part = Half | Literal["all"]


class MissingOutcomesError(Exception):
    """Scores that were kept without outcomes, or a half of a dataset without an image."""


class Halves:
    """Scores on halves, from the outcomes in the store."""

    def __init__(self, store: Store) -> None:
        self.images = PerImage(store)

    def value(
        self, result: CellResult, metric: str, part: Part = "all", *, length: float = 1.0, over: Over = "end"
    ) -> float | None:
        """A metric of a cell; None where it is not defined.

        Args:
            result: of a cell that is done.
            metric: its name.
            part: of the test images.
            length: of the last model; one that was measured.
            over: which tasks count; at another length than 1 there is only the last.

        Raises:
            MissingOutcomesError: there are no outcomes, or there is no image of some dataset in that half.

        """
        return value(self.history(result, part, length), metric, over)

    def history(self, result: CellResult, part: Part = "all", length: float = 1.0) -> AccuracyHistory:
        """The history of a cell on a part of the test images. Raises MissingOutcomesError."""
        rows = rows_at(result, length)
        if part == "all":
            return rows[-1].history.until(rows[-1].task)
        setting = result.cell.setting
        keys = [row.scores_key for row in rows]
        images = self.images.test_images(setting)
        if images is None or not images.has_halves or not all(self.images.has_outcomes(key) for key in keys):
            raise MissingOutcomesError
        return AccuracyHistory(
            Lazy(partial(self._accuracy, keys, setting, part), range(len(keys))),
            setting.adaptation,
            setting.evaluation,
            Lazy(partial(self._by_task, keys, setting, part), range(len(keys))),
        )

    def _accuracy(self, keys: list[str], setting: Setting, half: Half, task: int) -> Mapping[str, float]:
        images, outcomes = self.images.test_images(setting), self.images.outcomes(keys[task])
        if images is None or outcomes is None:
            raise MissingOutcomesError  # they were damaged, and are set aside now
        return accuracies_of(images.percents(outcomes, half))

    def _by_task(self, keys: list[str], setting: Setting, half: Half, task: int) -> list[float]:
        found = self.images.by_task(keys[task], setting, half)
        if found is None:
            raise MissingOutcomesError
        return found


def rows_at(result: CellResult, length: float) -> tuple[TaskResult, ...]:
    """The rows of a cell, the last of them at that length."""
    return result.rows if length == 1 else (*result.rows[:-1], result.at_lengths[length])
