"""Best-in-TIME: which cells may be the best, as far as seeds and test images can tell.

A winner, and the length at which a cell is best, are selected on one half of the test images; what is said of them is
measured on the other. Cells are compared by seed, since seeds have their own streams.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.best_length import lengths_of
from time_ray.analysis.contenders import AXES, Cells, Comparable, Contender, comparable, contenders
from time_ray.analysis.halves import Halves, MissingOutcomesError, Part, rows_at
from time_ray.analysis.resampling import probability_best
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError
from time_ray.core.metrics import METRICS, OF_THE_PAPER, Metric
from time_ray.core.statistics import deviation, mean, pareto_front
from time_ray.core.tied_best import practically_equal, tied_best
from time_ray.results import CellResult, Removed

Values = NDArray[np.float64]

DECISION = (
    "baseline",
    "length",
    "value",
    "selected_on",
    "lower",
    "upper",
    "tied",
    "practically_equal",
    "p_best",
    "distance",
    "removed",
    "removed_after",
    "removed_by",
)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A contender, what it scores, and whether it may be the best.

    Attributes:
        contender: the cells of all seeds.
        seeds: those that count.
        length: at which the last models are compared; 1: as they are served.
        value: mean over seeds of what ranks, on the half of the test images that was not selected on.
        selected_on: the same on the half that was.
        by_seed: what `value` is the mean of.
        lower: bound of its true value less that of the best of the others; at most 0. All bounds hold together with a
            probability of 95 %. None with one seed, or one cell.
        upper: the other bound; at least 0.
        tied: whether it may be the best; None with one seed, which tells nothing.
        practically_equal: whether the leader is better by at most epsilon; None with one seed.
        p_best: how often it is the best when seeds and test images are drawn anew; None for what is no candidate.
        baseline: which of the named baselines it is; empty: none.
        pareto: no other cell has both a higher KA and a higher ZS, on all test images, as they are served.
        removed: why a search runs it no more; None for what is ranked.

    """

    contender: Contender
    seeds: tuple[int, ...]
    length: float
    value: float | None
    selected_on: float | None
    by_seed: tuple[float, ...] = ()
    lower: float | None = None
    upper: float | None = None
    tied: bool | None = None
    practically_equal: bool | None = None
    p_best: float | None = None
    baseline: str = ""
    pareto: bool = False
    removed: Removed | None = None

    @property
    def name(self) -> str:
        """It in one line, for people."""
        return self.contender.name

    @property
    def results(self) -> list[CellResult]:
        """Its cells, seed by seed."""
        return list(self.contender.cells(self.seeds))

    def mean_of(self, name: str) -> float | None:
        """A metric on all test images, as the cells were served: mean over seeds."""
        return _mean(self._values(name))

    @cached_property
    def means(self) -> Mapping[str, float | None]:
        """That of every metric; some of them read outcomes."""
        return {name: self.mean_of(name) for name in METRICS}

    def sd_of(self, name: str) -> float | None:
        """The sample standard deviation (n - 1) of a metric over seeds; None for one seed."""
        return deviation(self._values(name))

    @cached_property
    def sds(self) -> Mapping[str, float | None]:
        """That of every metric."""
        return {name: self.sd_of(name) for name in METRICS}

    @property
    def distance(self) -> float | None:
        """||weights - base|| / ||base|| of what is compared, mean over seeds; None where it was not measured."""
        found = [rows_at(result, self.length)[-1].distance for result in self.results]
        return _mean([one for one in found if one is not None])

    def as_row(self) -> dict[str, object]:
        """The row of `best -f json`."""
        scores = {**self.means, **{f"{name}_sd": sd for name, sd in self.sds.items()}}
        known: dict[str, object] = {**self.contender.axes, **scores, "seeds": len(self.seeds)}
        known |= {"baseline": self.baseline or None, **dict.fromkeys(("removed", "removed_after", "removed_by"))}
        if (why := self.removed) is not None:
            known |= {"removed": why.text, "removed_after": why.seeds, "removed_by": why.by or None}
        return {name: known[name] if name in known else getattr(self, name) for name in columns()}

    def _values(self, name: str) -> list[float]:
        return [value for result in self.results if (value := result.final[name]) is not None]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Finished cells over their seeds: the leader, then what is not told from the best, then the rest.

    Attributes:
        criterion: what ranks; its metric is KA where another is defined for no cell.
        rows: the leader first, then those that may be the best, then the others, each by value.
        seeds: those that all cells are compared on.
        halves: whether selection and report are on different images; False where scores were kept without outcomes.
        lacking: finished cells that cannot be compared, since they lack seeds that others have.
        below_floor: cells that do not keep the floor.
        undefined: cells of which the metric is not defined.
        num_unfinished: cells that are not ranked, each seed counted.
        baselines: rows for comparison only: the base, and what was trained on all tasks at once.
        removed: what a search has removed, each over the seeds that it has; the last to leave first.

    """

    criterion: Criterion
    rows: tuple[Ranked, ...]
    seeds: tuple[int, ...]
    halves: bool
    lacking: tuple[Contender, ...]
    below_floor: tuple[Contender, ...]
    undefined: tuple[Contender, ...]
    num_unfinished: int
    baselines: tuple[Ranked, ...] = ()
    removed: tuple[Ranked, ...] = ()

    @property
    def leader(self) -> Ranked:
        """What was selected."""
        return self.rows[0]

    @property
    def tied(self) -> tuple[Ranked, ...]:
        """What may be the best."""
        return tuple(row for row in self.rows if row.tied)

    @property
    def metric(self) -> Metric:
        """What ranks."""
        return self.criterion.metric

    @property
    def seed(self) -> int:
        """The seed whose weights are the winner's: that of the median, or the one that was named."""
        return self.criterion.seed if self.criterion.seed is not None else self._median

    @property
    def winner(self) -> CellResult:
        """The leader's cell whose weights are registered and exported, at the leader's length."""
        return self.leader.contender.results[self.seed]

    @property
    def _median(self) -> int:
        """The lower one of an even number; never the best of several."""
        scored = sorted(
            (self.metric.loss(value), seed) for value, seed in zip(self.leader.by_seed, self.seeds, strict=True)
        )
        return scored[len(scored) // 2][1]


def columns() -> tuple[str, ...]:
    """The columns of `best -f json` and `-f csv`. Later metrics stand behind earlier columns, so that none moves."""
    later = [name for name in METRICS if name not in OF_THE_PAPER]
    first = (*OF_THE_PAPER, *(f"{name}_sd" for name in OF_THE_PAPER))
    scores = (*first, "pareto", *(column for name in later for column in (name, f"{name}_sd")))
    return (*AXES, "seeds", *scores, *DECISION)


def ranking(
    results: Sequence[CellResult],
    halves: Halves,
    criterion: Criterion | None = None,
) -> Ranking:
    """The ranking of all that is finished, which may be nothing.

    Args:
        results: of the cells, and of what was trained on all tasks at once.
        halves: where their outcomes are.
        criterion: what ranks; None: GM after the last task.

    Raises:
        UserError: no cell keeps the floor, or no cell that is compared has the seed that is named.

    """
    every = [result for result in results if not result.cell.multitask]
    cells = [result for result in every if result.removed is None and result.wanted]
    compared = comparable(contenders(cells))
    criterion = _defined(criterion or Criterion(), compared)
    if criterion.seed is not None and compared.contenders and criterion.seed not in compared.seeds:
        raise UserError(f"--seed {criterion.seed}: no such seed; cells have {', '.join(map(str, compared.seeds))}")
    try:
        table = _Table(compared, halves, criterion, separate=True)
    except MissingOutcomesError:
        table = _Table(compared, halves, criterion, separate=False)
    return Ranking(
        criterion=criterion,
        rows=table.rows(),
        seeds=compared.seeds,
        halves=table.separate,
        lacking=tuple(compared.lacking),
        below_floor=tuple(table.below_floor),
        undefined=tuple(table.undefined),
        num_unfinished=sum(result.due for result in cells),
        baselines=table.baselines([result for result in results if result.cell.multitask]),
        removed=tuple(_removed([result for result in every if result.removed], halves, criterion)),
    )


def _removed(results: Sequence[CellResult], halves: Halves, criterion: Criterion) -> list[Ranked]:
    """What a search has removed, on all test images and the seeds that each has."""
    rows = []
    for contender in contenders(results):
        seeds = tuple(sorted(contender.results))
        values = [halves.value(one, criterion.by, over=criterion.over) for one in contender.cells(seeds)]
        found = [value for value in values if value is not None]
        why = contender.results[seeds[0]].removed
        rows.append(
            Ranked(
                contender=contender,
                seeds=seeds,
                length=1.0,
                value=_mean(found),
                selected_on=None,
                by_seed=tuple(found),
                removed=why,
            )
        )
    return sorted(rows, key=lambda row: -(row.removed.seeds if row.removed else 0))


def _defined(criterion: Criterion, compared: Comparable) -> Criterion:
    """What was asked for, or KA where that is defined for no cell: without held-out data there is no GM."""
    every = (result for contender in compared.contenders for result in contender.results.values())
    if criterion.by in OF_THE_PAPER and all(result.final[criterion.by] is None for result in every):
        return replace(criterion, by="ka")
    return criterion


class _Table:
    """What all contenders score: on the half that selects, and on the half that is reported."""

    def __init__(self, compared: Comparable, halves: Halves, criterion: Criterion, *, separate: bool) -> None:
        self.separate = separate
        self.halves = halves
        self.criterion = criterion
        self.seeds = compared.seeds
        self.sign = 1.0 if criterion.metric.higher_is_better else -1.0
        self.below_floor: list[Contender] = []
        self.undefined: list[Contender] = []
        self.contenders: list[Contender] = []
        self.lengths: list[float] = []
        selected, report = [], []
        for contender in compared.contenders:
            cells = contender.cells(self.seeds)
            allowed = [length for length in lengths_of(cells, criterion) if self._keeps_floor(cells, length)]
            if not allowed:
                self.below_floor.append(contender)
                continue
            found = {length: self._values(cells, self._select, length) for length in allowed}
            if any(values is None for values in found.values()):
                self.undefined.append(contender)
                continue
            means = {length: mean(values) for length, values in found.items() if values}
            length = max(means, key=means.__getitem__)
            self.contenders.append(contender)
            self.lengths.append(length)
            selected.append(means[length])
            report.append(self._values(cells, self._report, length) or [])
        self.selected_on: Values = np.array(selected)
        self.report: Values = np.array(report, dtype=np.float64).reshape(len(report), len(self.seeds))
        if not self.contenders and self.below_floor and criterion.floor:
            raise UserError(
                f"--floor {criterion.floor.text}: no cell keeps it; lower it, or measure evaluation.lengths"
            )
        if not self.contenders and self.undefined:
            raise UserError(f"--by {criterion.by}: it is not defined for these cells; rank by another metric")

    def rows(self) -> tuple[Ranked, ...]:
        """See Ranking."""
        if not self.contenders:
            return ()
        leader = int(np.argmax(self.selected_on))
        found = [
            Ranked(
                contender=contender,
                seeds=self.seeds,
                length=length,
                value=self.sign * float(values.mean()),
                by_seed=tuple((self.sign * values).tolist()),
                selected_on=self.sign * selected_on,
                baseline=_baseline_name(contender, length),
            )
            for contender, length, selected_on, values in zip(
                self.contenders, self.lengths, self.selected_on, self.report, strict=True
            )
        ]
        found = self._on_the_front(self._told_apart(found, leader))
        first, *others = [found[leader], *(row for number, row in enumerate(found) if number != leader)]
        others.sort(key=lambda row: (not row.tied, -self.sign * (row.value or 0.0), row.contender.name))
        return (first, *others)

    def baselines(self, multitask: Sequence[CellResult]) -> tuple[Ranked, ...]:
        """The base of each model, and what was trained on all tasks at once: on the same images and seeds."""
        found = []
        for model in dict.fromkeys(contender.axes["model"] for contender in self.contenders):
            one = next(contender for contender in self.contenders if contender.axes["model"] == model)
            untrained = {seed: _untrained(result) for seed, result in one.results.items()}
            axes = {**dict.fromkeys(AXES, "–"), "init": "(base)", "model": model}
            found.append(self._baseline(Contender(axes, untrained), "base"))
        for contender, length in zip(self.contenders, self.lengths, strict=True):
            if _baseline_name(contender, 1.0) == "ft/ft" and length != 1:
                found.append(self._baseline(contender, "ft/ft"))
        found += [
            self._baseline(contender, "multitask")
            for contender in contenders(multitask)
            if set(self.seeds) <= contender.results.keys()
        ]
        return tuple(found)

    def _baseline(self, contender: Contender, name: str) -> Ranked:
        over = self.criterion.over if name != "base" else "end"

        def by_seed(part: Part) -> list[float]:
            cells = contender.cells(self.seeds)
            values = [self.halves.value(result, self.criterion.by, part, over=over) for result in cells]
            return [value for value in values if value is not None]

        report = by_seed(self._report)
        return Ranked(
            contender=contender,
            seeds=self.seeds,
            length=1.0,
            value=_mean(report),
            by_seed=tuple(report),
            selected_on=_mean(by_seed(self._select)),
            baseline=name,
        )

    def _told_apart(self, rows: list[Ranked], leader: int) -> list[Ranked]:
        """What seeds say of every row, and images."""
        tied: Sequence[bool | None] = [None] * len(rows)
        if len(self.seeds) > 1:
            found = tied_best(self.report)
            equal = practically_equal(self.report, leader, self.criterion.epsilon)
            tied = [bool(one) for one in found.in_set]
            alone = len(rows) == 1  # then it has no other to be better than
            signed = [(found.lower, found.upper), (-found.upper, -found.lower)][self.sign < 0]
            rows = [
                replace(
                    row,
                    tied=tied[number],
                    lower=None if alone else float(signed[0][number]),
                    upper=None if alone else float(signed[1][number]),
                    practically_equal=bool(equal[number]),
                )
                for number, row in enumerate(rows)
            ]
        candidates = [number for number in range(len(rows)) if tied[number] is not False]
        chances = probability_best(
            [(self.contenders[number], self.lengths[number]) for number in candidates],
            self.seeds,
            self.report[candidates],
            self.criterion,
            self.halves if self.separate else None,
        )
        for number, chance in zip(candidates, chances, strict=True):
            rows[number] = replace(rows[number], p_best=chance)
        return rows

    def _on_the_front(self, rows: Sequence[Ranked]) -> list[Ranked]:
        scores = [[row.mean_of(name) or 0.0 for name in ("ka", "zs")] for row in rows]
        front = set(pareto_front([(ka, zs) for ka, zs in scores]))
        return [replace(row, pareto=number in front) for number, row in enumerate(rows)]

    @property
    def _select(self) -> Part:
        return "select" if self.separate else "all"

    @property
    def _report(self) -> Part:
        return "report" if self.separate else "all"

    def _keeps_floor(self, cells: Cells, length: float) -> bool:
        floor = self.criterion.floor
        if floor is None:
            return True
        own = [self.halves.value(result, floor.metric, self._select, length=length) for result in cells]
        bases = [self.halves.value(_untrained(result), floor.metric, self._select) for result in cells]
        return floor.holds(_whole_mean(own), _whole_mean(bases))

    def _values(self, cells: Cells, part: Part, length: float) -> list[float] | None:
        """By seed, the higher, the better; None where one is not defined."""
        criterion, values = self.criterion, list[float]()
        for result in cells:
            found = self.halves.value(result, criterion.by, part, length=length, over=criterion.over)
            if found is None:
                return None
            values.append(self.sign * found)
        return values


def _untrained(result: CellResult) -> CellResult:
    """As it was before any training: the base."""
    return replace(result, rows=result.rows[:1], at_lengths={})


def _baseline_name(contender: Contender, length: float) -> str:
    """Plain fine-tuning, as it is or moved back towards the base (WiSE-FT, https://arxiv.org/abs/2109.01903)."""
    init, deploy = contender.axes["init"], contender.axes["deploy"]
    if init != "ft" or deploy.partition("(patch=")[0] != "ft":
        return ""
    return "ft/ft" if deploy == "ft" and length == 1 else "patched ft/ft"


def _whole_mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if len(found) == len(values) else None


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
