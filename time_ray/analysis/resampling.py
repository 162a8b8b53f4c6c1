"""How often a contender is the best when seeds and test images are drawn anew: a paired bootstrap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from time_ray.analysis.contenders import Contender
from time_ray.analysis.halves import Halves, rows_at
from time_ray.core import bootstrap
from time_ray.core.criterion import Criterion
from time_ray.core.grid import Setting
from time_ray.core.metrics import OF_THE_PAPER
from time_ray.core.outcomes import Question, accuracies_of
from time_ray.results import CellResult

Values = NDArray[np.float64]
Right = Mapping[Question, NDArray[np.float32]]  # outcomes [models, images]

RESAMPLES = 500
DIFFERENCES = 2000  # draws of a difference of two
MOST_CANDIDATES = 64  # beyond the best so many, none is ever the best


def probability_best(
    candidates: Sequence[tuple[Contender, float]],
    seeds: Sequence[int],
    values: Values,
    criterion: Criterion,
    halves: Halves | None,
) -> list[float]:
    """For each candidate the share of resamples in which it has the highest mean; equals share it.

    Seeds are drawn with replacement, for all candidates alike; and with them the images of the half that is reported,
    dataset by dataset, where the metric is the paper's after the last task. With one seed only images are drawn: then
    it is said of this stream alone.

    Args:
        candidates: each with the length at which it competes.
        seeds: that all of them have.
        values: [candidates, seeds], the higher, the better.
        criterion: what ranks.
        halves: outcomes of images; None: they are not drawn.

    """
    order = np.argsort(-values.mean(axis=1), kind="stable")[:MOST_CANDIDATES]
    some, theirs = [candidates[number] for number in order], values[order]
    drawn_by_image = halves is not None and criterion.by in OF_THE_PAPER and criterion.over == "end"
    draw = _images(some, seeds, criterion, halves).draw if halves and drawn_by_image else lambda _: theirs
    chances = np.zeros(len(candidates))
    chances[order] = bootstrap.probability_best(draw, np.random.default_rng(0), resamples=RESAMPLES)
    found: list[float] = chances.tolist()
    return found


def difference_interval(
    settings: Sequence[Setting], right: Sequence[Right], by: str, *, level: float = 0.95
) -> tuple[float, float]:
    """An interval of what the first of two models has more than the other, by images drawn anew, the same for both.

    Args:
        settings: of every seed.
        right: likewise, by question outcomes [2, images].
        by: the paper's metric: its mean over these seeds.
        level: of the interval, whose ends are quantiles of 2000 draws.

    """
    generator, images = np.random.default_rng(0), _Images(settings, right, by)
    drawn = [images.draw(generator).mean(axis=1) for _ in range(DIFFERENCES)]
    low, high = np.quantile([one - other for one, other in drawn], [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _images(
    candidates: Sequence[tuple[Contender, float]], seeds: Sequence[int], criterion: Criterion, halves: Halves
) -> "_Images":
    settings = [candidates[0][0].results[seed].cell.setting for seed in seeds]
    right = [
        _stacked([(contender.results[seed], length) for contender, length in candidates], halves) for seed in seeds
    ]
    return _Images(settings, right, criterion.by)


class _Images:
    """Outcomes of models, setting by setting, on images that are drawn anew."""

    def __init__(self, settings: Sequence[Setting], right: Sequence[Right], by: str) -> None:
        self._by = by
        self._settings = settings
        self._right = right

    def draw(self, generator: Generator) -> Values:
        """Values [candidates, seeds] on images drawn anew: the same for all candidates; seeds may share them, too."""
        drawn: dict[str, dict[Question, NDArray[np.float32]]] = {}
        columns = []
        for setting, right in zip(self._settings, self._right, strict=True):
            if setting.evaluation_key not in drawn:
                drawn[setting.evaluation_key] = {question: _times(generator, bits) for question, bits in right.items()}
            times = drawn[setting.evaluation_key]
            percents = {question: 100 * (bits @ times[question]) / bits.shape[1] for question, bits in right.items()}
            columns.append(_of_the_paper(accuracies_of(percents), setting, self._by))
        return np.array(columns, dtype=np.float64).T


def _of_the_paper(accuracies: Mapping[str, Any], setting: Setting, by: str) -> Values:
    """KA, ZS or GM (see `core.metrics`) of all candidates at once: from accuracies [candidates], by dataset."""
    sides = {"ka": setting.adaptation, "zs": setting.evaluation}
    means = [
        np.mean([accuracies[name] for name in names], axis=0) for side, names in sides.items() if by in (side, "gm")
    ]
    found: Values = means[0] if len(means) == 1 else np.sqrt(means[0] * means[1])
    return found


def _stacked(results: Sequence[tuple[CellResult, float]], halves: Halves) -> Right:
    """Of every question the outcomes [results, images] on the half that is reported."""
    images = halves.images.test_images(results[0][0].cell.setting)
    chosen = images.half("report") if images else {}
    found = [halves.images.outcomes(rows_at(result, length)[-1].scores_key) or {} for result, length in results]
    return {
        question: np.array([outcomes[question][keep] for outcomes in found], dtype=np.float32)
        for question, keep in chosen.items()
    }


def _times(generator: Generator, bits: NDArray[np.float32]) -> NDArray[np.float32]:
    """How often each of the images is drawn."""
    count = bits.shape[1]
    return np.bincount(generator.integers(count, size=count), minlength=count).astype(np.float32)
