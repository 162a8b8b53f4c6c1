"""Searching for the best cell without running all: which cells leave, after how many seeds, and because of which.

Values are [cells, seeds], higher is better, and paired: a column is one seed, hence one stream. Seeds come one after
the other. After each the live cells are looked at, and some of them leave. What is decided follows from values,
failures and rules alone, so that whoever asks again, at any time, is told the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from time_ray.core.tied_best import NO_PRIOR, Prior, fit_prior

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Cells = NDArray[np.intp]

FAILED = -1  # in place of the cell because of which another one leaves


@dataclass(frozen=True)
class Removal:
    """A cell that has left.

    Attributes:
        cell: its number.
        seeds: how many had been run.
        by: the leader then; FAILED if the cell has no value for one of them.
        ahead: by how much the cell is at most ahead of that leader: below 0, it is behind at least so far. In halving,
            which bounds nothing, by how much its mean is ahead.

    """

    cell: int
    seeds: int
    by: int
    ahead: float


@dataclass(frozen=True)
class Selection:
    """What is decided so far.

    Attributes:
        live: cells that have not left.
        removed: in the order in which they left.
        ran: for each seed that was begun, the cells that were live at its start.
        over: whether no further seed is run; else those of the last of `ran` are waited for.

    """

    live: tuple[int, ...]
    removed: tuple[Removal, ...]
    ran: tuple[tuple[int, ...], ...]
    over: bool


class Rule(Protocol):
    """How cells leave."""

    def leaving(self, values: Values, live: Cells, removed: Sequence[Removal]) -> list[Removal]:
        """Which of the live cells leave now; never all.

        Args:
            values: of the live cells, [live, seeds so far].
            live: their numbers.
            removed: those that have left before.

        """

    def settled(self, live: Cells) -> bool:
        """Whether further seeds could not make any of these leave."""


def select(values: Values, failed: Mask, rule: Rule) -> Selection:
    """What the values decide.

    Args:
        values: [cells, seeds] of all seeds that may be run; NaN where there is none yet, or never will be.
        failed: [cells, seeds], where there never will be one: such a cell leaves, and is compared no more.
        rule: how cells leave.

    """
    live = np.arange(len(values))
    removed: list[Removal] = []
    ran: list[tuple[int, ...]] = []
    for seeds in range(1, values.shape[1] + 1):
        ran.append(tuple(live.tolist()))
        lost = live[failed[live, seeds - 1]]
        removed += [Removal(int(cell), seeds, FAILED, -np.inf) for cell in lost]
        live = np.setdiff1d(live, lost)
        seen = values[live, :seeds]
        if np.isnan(seen).any():
            return Selection(tuple(live.tolist()), tuple(removed), tuple(ran), over=False)
        if len(live):
            leaving = rule.leaving(seen, live, removed)
            removed += leaving
            live = np.setdiff1d(live, [one.cell for one in leaving])
        if not len(live) or rule.settled(live):
            break
    return Selection(tuple(live.tolist()), tuple(removed), tuple(ran), over=True)


@dataclass(frozen=True, eq=False)
class PairPriors:
    """What is known of variances before any is seen: a prior for each two kinds of cells.

    Attributes:
        kind: [cells], the number of each cell's kind.
        df: [kinds, kinds] degrees of freedom; 0 where nothing is known.
        variance: [kinds, kinds].
        pooled: [kinds, kinds], see `Prior`.

    """

    kind: NDArray[np.intp]
    df: Values
    variance: Values
    pooled: Values

    @property
    def known(self) -> bool:
        """Whether anything is."""
        return bool((self.df > 0).any())

    def between(self, one: int, others: Cells) -> tuple[Values, Values, Values]:
        """Degrees of freedom, variance and pooled degrees of pairs of a cell with others."""
        rows, columns = self.kind[one], self.kind[others]
        return self.df[rows, columns], self.variance[rows, columns], self.pooled[rows, columns]


def nothing_known(cells: int) -> PairPriors:
    """Priors of so many cells of which nothing is known."""
    return PairPriors(np.zeros(cells, dtype=np.intp), *(np.zeros((1, 1)) for _ in range(3)))


@dataclass(frozen=True, eq=False)
class Race:
    """A cell leaves once it is surely not better than the leader by more than epsilon.

    Of cells c and the leader b let D be the mean over S seeds of x_c - x_b, v~ its moderated variance, C the number of
    cells at the start and L that of looks. A cell leaves when D + t(1 - delta/(2 L (C - 1))) · sqrt(v~ / S) <= epsilon.
    A guard, which is a cell that has made others leave, must not leave a gap behind: its bound is at
    delta/(2 L C (C - 1)), and has to be at most 0. So tolerances do not add up, and with probability 1 - delta the
    survivors hold a cell within epsilon of the best, as far as differences are normal.

    Attributes:
        cells: C.
        seeds: the most that are run.
        epsilon: a difference that does not matter.
        delta: how often the survivors may hold no cell within epsilon of the best.
        priors: of variances. Where they know nothing the pairs of all live cells tell, from the second seed on.

    """

    cells: int
    seeds: int
    epsilon: float
    delta: float
    priors: PairPriors
    looks: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", self.seeds if self.priors.known else self.seeds - 1)

    def leaving(self, values: Values, live: Cells, removed: Sequence[Removal]) -> list[Removal]:
        """See Rule."""
        if len(live) == 1:
            return []
        leader = int(np.argmax(values.mean(axis=1)))
        guard = np.isin(live, [one.by for one in removed])
        level = self.delta / (2 * self.looks * max(self.cells - 1, 1))
        levels = np.where(guard, level / self.cells, level)
        ahead = self._bounds(values, live, leader, levels)
        out = ahead <= np.where(guard, 0.0, self.epsilon)
        out[leader] = False
        by = int(live[leader])
        return [
            Removal(int(cell), values.shape[1], by, float(bound))
            for cell, bound in zip(live[out], ahead[out], strict=True)
        ]

    def settled(self, live: Cells) -> bool:
        """See Rule."""
        return len(live) == 1

    def _bounds(self, values: Values, live: Cells, leader: int, levels: Values) -> Values:
        """The most by which each cell is ahead of the leader."""
        from scipy.special import ndtri, stdtrit

        seeds = values.shape[1]
        differences = values - values[leader]
        own = differences.var(axis=1, ddof=1) if seeds > 1 else np.zeros(len(values))
        df, variance, pooled = self.priors.between(int(live[leader]), live)
        fitted = fit_prior(values) if seeds > 1 and not df.all() else NO_PRIOR
        df, variance, pooled = (
            np.where(df > 0, known, seen)
            for known, seen in zip((df, variance, pooled), _as_arrays(fitted), strict=True)
        )
        total = np.minimum(df + seeds - 1, np.where(df > 0, pooled, np.inf))
        with np.errstate(invalid="ignore", divide="ignore"):
            trust = np.where(np.isinf(df), 1.0, df / (df + seeds - 1))
            moderated = trust * variance + (1 - trust) * own
            quantile = np.where(np.isinf(total), ndtri(1 - levels), stdtrit(total, 1 - levels))
            width = quantile * np.sqrt(moderated / seeds)
        bounds: Values = differences.mean(axis=1) + np.where(total > 0, width, np.inf)
        return bounds


def _as_arrays(prior: Prior) -> tuple[Values, Values, Values]:
    return np.array(prior.df), np.array(prior.variance), np.array(prior.pooled)


@dataclass(frozen=True, eq=False)
class Halve:
    """Successive halving: of the trajectories with a live cell the better half goes on, by the best mean of its cells.

    It ends with one trajectory, whose cells are not told apart. Nothing is guaranteed.

    Attributes:
        trajectory: [cells], the number of each cell's trajectory.

    """

    trajectory: NDArray[np.intp]

    def leaving(self, values: Values, live: Cells, removed: Sequence[Removal]) -> list[Removal]:  # noqa: ARG002
        """See Rule."""
        means = values.mean(axis=1)
        leader = int(np.argmax(means))
        going = np.unique(self.trajectory[live])
        best = [means[self.trajectory[live] == one].max() for one in going]
        better = going[np.argsort(best)[::-1][: max(1, len(going) // 2)]]
        out = ~np.isin(self.trajectory[live], better)
        by = int(live[leader])
        return [
            Removal(int(cell), values.shape[1], by, float(ahead))
            for cell, ahead in zip(live[out], means[out] - means[leader], strict=True)
        ]

    def settled(self, live: Cells) -> bool:
        """See Rule."""
        return len(np.unique(self.trajectory[live])) == 1


def trajectories_run(selection: Selection, trajectory: NDArray[np.intp]) -> int:
    """How many trajectories were run, each seed's counted."""
    return sum(len(np.unique(trajectory[list(cells)])) for cells in selection.ran)
