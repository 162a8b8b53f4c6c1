"""Two selections of cells, compared pair by pair on the same seeds and the same test images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.best_length import Measured, measured
from time_ray.analysis.contenders import contenders
from time_ray.analysis.halves import Halves, rows_at
from time_ray.analysis.pairing import Pairs, pairs_of
from time_ray.core.criterion import Criterion
from time_ray.core.grid import Setting
from time_ray.core.metrics import AccuracyHistory
from time_ray.core.outcomes import SCORED_SIDES, Bits, Question
from time_ray.core.paired import mcnemar, paired_interval
from time_ray.core.selection import Selection
from time_ray.core.statistics import mean
from time_ray.core.tied_best import NO_PRIOR, Prior, fit_prior
from time_ray.results import CellResult

Values = NDArray[np.float64]
COUNTED = ("", *SCORED_SIDES)  # the questions that scores are of


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What A has more than B: mean over seeds, in each of them over pairs.

    Attributes:
        a: the mean of A.
        b: that of B.
        mean: a less b.
        low: where the 95 % interval over seeds begins; None with one seed.
        high: where it ends.
        by_seed: a less b.

    """

    a: float
    b: float
    mean: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]


class Named(NamedTuple):
    """A difference on one dataset, one task, or one pair of cells."""

    name: str
    difference: Difference


class ClassDifference(NamedTuple):
    """A difference on one class of a dataset: percent right, over all pairs and seeds."""

    dataset: str
    name: str
    a: float
    b: float
    images: int  # outcomes that each of the two percentages is of


class Discordant(NamedTuple):
    """Outcomes that one cell has right and the other wrong, summed over seeds, and McNemar's exact test of these."""

    only_a: int
    only_b: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A against B, on all that they share.

    Attributes:
        a: selects one side.
        b: selects the other.
        criterion: the metric, over which tasks, and at which lengths.
        seeds: that every pair has.
        pairs: cells of A, each less its partner in B, named by what all axes say that neither A nor B names.
        lengths_a: of the last models of each pair.
        lengths_b: likewise.
        halves: whether lengths were chosen on images that nothing here is measured on; then this is of one half.
        difference: of the metric.
        datasets: accuracy after the last task, for every dataset, the largest difference first.
        tasks: the same on the classes of each task, in order; none where outcomes were not kept.
        classes: the same for every class, the one with the most outcomes that differ first.
        images: of two single cells; None with several pairs, or without outcomes.
        num_same: pairs that are left out, since both cells serve the same models.
        num_unfinished: cells that are selected and not done.

    """

    a: str
    b: str
    criterion: Criterion
    seeds: tuple[int, ...]
    pairs: tuple[Named, ...]
    lengths_a: tuple[float, ...]
    lengths_b: tuple[float, ...]
    halves: bool
    difference: Difference
    datasets: tuple[Named, ...]
    tasks: tuple[Named, ...]
    classes: tuple[ClassDifference, ...]
    images: Discordant | None
    num_same: int
    num_unfinished: int

    def as_dict(self) -> dict[str, object]:
        """What `compare -f json` prints."""

        def row(named: Named) -> dict[str, object]:
            return {"name": named.name, **asdict(named.difference)}

        return {
            "a": self.a,
            "b": self.b,
            "metric": self.criterion.by,
            "over": self.criterion.over,
            "halves": self.halves,
            "seeds": list(self.seeds),
            "difference": asdict(self.difference),
            "pairs": [
                {**row(pair), "length_a": a, "length_b": b}
                for pair, a, b in zip(self.pairs, self.lengths_a, self.lengths_b, strict=True)
            ],
            "datasets": [row(named) for named in self.datasets],
            "tasks": [row(named) for named in self.tasks],
            "classes": [one._asdict() for one in self.classes],
            "images": None if self.images is None else self.images._asdict(),
            "same": self.num_same,
            "unfinished": self.num_unfinished,
        }


def compare(
    results: Sequence[CellResult], halves: Halves, a: Selection, b: Selection, criterion: Criterion
) -> Comparison:
    """The comparison of all cells of A with those of B that agree with them on the seed and all axes not named.

    Args:
        results: of the cells; those trained on all tasks at once are none.
        halves: where their outcomes are.
        a: one side.
        b: the other.
        criterion: the metric, over which tasks, and whether at best lengths. Floor, epsilon and seed do not count.

    Raises:
        UserError: they cannot be paired, as `pairs_of` says; or the metric is not defined.

    """
    cells = [result for result in results if not result.cell.multitask]
    found = pairs_of(cells, a, b)
    table = _Table(found, halves, criterion, _prior(cells, found, halves, criterion))
    return Comparison(
        a=a.text,
        b=b.text,
        criterion=criterion,
        seeds=found.seeds,
        pairs=tuple(table.pairs),
        lengths_a=table.measured.lengths[: len(found.names)],
        lengths_b=table.measured.lengths[len(found.names) :],
        halves=table.measured.part == "report",
        difference=table.of(table.measured.values),
        datasets=tuple(sorted(table.datasets(), key=lambda named: -abs(named.difference.mean))),
        tasks=tuple(table.tasks()),
        classes=tuple(sorted(table.classes(), key=lambda one: -abs(one.a - one.b) * one.images)),
        images=table.discordant() if len(found.names) == 1 else None,
        num_same=found.num_same,
        num_unfinished=found.num_unfinished,
    )


def _prior(cells: Sequence[CellResult], pairs: Pairs, halves: Halves, criterion: Criterion) -> Prior:
    """What all cells of the sweep say of the variance of a difference of two; nothing for means over several pairs."""
    if len(pairs.names) > 1 or len(pairs.seeds) < 2:
        return NO_PRIOR
    alike = [one.results for one in contenders(cells) if set(pairs.seeds) <= one.results.keys()]
    return fit_prior(measured([[one[seed] for seed in pairs.seeds] for one in alike], halves, criterion).values)


class _Table:
    """All differences of some pairs."""

    def __init__(self, pairs: Pairs, halves: Halves, criterion: Criterion, prior: Prior) -> None:
        self._pairs = pairs
        self._halves = halves
        self._prior = prior
        self.measured: Measured = measured([*pairs.a, *pairs.b], halves, criterion)

    def of(self, values: Values) -> Difference:
        """Of the metric, from values [cells of A, then cells of B; seeds]."""
        return _difference(values, self._prior)

    @property
    def pairs(self) -> Iterator[Named]:
        """Each by itself."""
        count = len(self._pairs.names)
        for number, name in enumerate(self._pairs.names):
            yield Named(name, self.of(self.measured.values[[number, number + count]]))

    def datasets(self) -> Iterator[Named]:
        """Accuracy, without the prior: that is of the metric."""
        setting = self._pairs.a[0][0].cell.setting
        for name in (*setting.adaptation, *setting.evaluation):
            values = [[history.accuracies[-1][name] for history in place] for place in self._histories]
            yield Named(name, _difference(np.array(values)))

    def tasks(self) -> Iterator[Named]:
        """Accuracy on the classes of each."""
        found = [[history.on_tasks(len(history.accuracies) - 1) for history in place] for place in self._histories]
        if any(values is None for place in found for values in place):
            return
        for number, values in enumerate(np.moveaxis(np.array(found, dtype=np.float64), 2, 0), start=1):
            if not np.isnan(values).all(axis=None) and not np.isnan(values).any(axis=0).all():
                yield Named(f"task {number}", _difference(values))

    def classes(self) -> Iterator[ClassDifference]:
        """Where outcomes were kept, those that have images."""
        right: dict[Question, Values] = {}
        names: Mapping[str, Sequence[str]] = {}
        for a, b in self._outcomes:
            about = self._halves.images.test_images(a.setting)
            if about is None:
                return
            names = about.classes
            for question, labels in about.labels.items():
                if question in a.right and question in b.right and question.dataset in names and not question.side:
                    kept = labels[a.kept[question]]
                    counts = [
                        np.bincount(kept + 1, weights, len(names[question.dataset]) + 1)[1:]
                        for weights in (a.right[question], b.right[question], None)
                    ]
                    right[question] = right.get(question, np.zeros(())) + np.array(counts)
        for question, (in_a, in_b, images) in right.items():
            for name, a_right, b_right, count in zip(names[question.dataset], in_a, in_b, images, strict=True):
                if count:
                    shares = (float(100 * a_right / count), float(100 * b_right / count))
                    yield ClassDifference(question.dataset, name, *shares, int(count))

    def discordant(self) -> Discordant | None:
        """Over all questions that scores are of."""
        only_a = only_b = 0
        found = self._outcomes
        for a, b in found:
            for question in a.right:
                if question.side in COUNTED:
                    only_a += int((a.right[question] & ~b.right[question]).sum())
                    only_b += int((b.right[question] & ~a.right[question]).sum())
        return Discordant(only_a, only_b, mcnemar(only_a, only_b)) if found else None

    @cached_property
    def _histories(self) -> list[list[AccuracyHistory]]:
        found = zip([*self._pairs.a, *self._pairs.b], self.measured.lengths, strict=True)
        return [
            [self._halves.history(result, self.measured.part, length) for result in cells] for cells, length in found
        ]

    @cached_property
    def _outcomes(self) -> list[tuple["_Right", "_Right"]]:
        """Of every pair and seed; none at all if one lacks them."""
        count = len(self._pairs.names)
        found = []
        for number, (a, b) in enumerate(zip(self._pairs.a, self._pairs.b, strict=True)):
            for one, other in zip(a, b, strict=True):
                both = (
                    self._right(one, self.measured.lengths[number]),
                    self._right(other, self.measured.lengths[number + count]),
                )
                if both[0] is None or both[1] is None:
                    return []
                found.append((both[0], both[1]))
        return found

    def _right(self, result: CellResult, length: float) -> "_Right | None":
        setting = result.cell.setting
        images = self._halves.images.test_images(setting)
        outcomes = self._halves.images.outcomes(rows_at(result, length)[-1].scores_key)
        if images is None or outcomes is None:
            return None
        if self.measured.part == "report":
            kept = images.half("report")
        else:
            kept = {question: np.ones(len(bits), dtype=bool) for question, bits in outcomes.items()}
        return _Right(setting, {question: bits[kept[question]] for question, bits in outcomes.items()}, kept)


class _Right(NamedTuple):
    """What one model has right on the images that count."""

    setting: Setting
    right: Mapping[Question, Bits]
    kept: Mapping[Question, Bits]  # of all images, which count


def _difference(values: Values, prior: Prior = NO_PRIOR) -> Difference:
    """From values [cells of A, then cells of B; seeds]; NaN where a seed has none."""
    a, b = (side.mean(axis=0) for side in np.split(values, 2))
    known = ~np.isnan(a - b)
    a, b = a[known], b[known]
    differences = a - b
    interval = paired_interval(differences, prior=prior) if len(differences) > 1 else None
    return Difference(
        a=mean(a.tolist()),
        b=mean(b.tolist()),
        mean=mean(differences.tolist()),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        by_seed=tuple(differences.tolist()),
    )
