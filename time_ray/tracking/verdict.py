"""What a sweep has found, for its runs in MLflow: the ranking, what matters, what it cost, and how each cell stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from time_ray.analysis.axis_importance import AxisImportance, axis_importance
from time_ray.analysis.contenders import identity
from time_ray.analysis.costs import Costs, costs
from time_ray.analysis.halves import Halves
from time_ray.analysis.ranking import Ranked, Ranking, ranking
from time_ray.analysis.tuning_gain import Gain
from time_ray.analysis.tuning_verdict import params_text
from time_ray.core.criterion import Criterion
from time_ray.core.errors import UserError
from time_ray.core.experiment import AXES
from time_ray.core.importance import Importance
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.results import CellResult
from time_ray.store.store import Store
from time_ray.tracking.names import metric_key

TIED_TAG = "tied"
LEADER_TAG = "leader"
REMOVED_TAG = "removed"  # by a search: when, by which cell, and how far it was behind


@dataclass(frozen=True)
class Verdict:
    """What is known of these results.

    Attributes:
        results: of all cells.
        ranked: of those that are finished; None where nothing can be ranked.
        importance: None unless the grid is whole, and has an axis to speak of.
        costs: of what is done.
        search: what is said of the search, line by line; nothing for a full grid.
        gains: what searches for parameters have found.

    """

    results: Sequence[CellResult]
    ranked: Ranking | None
    importance: AxisImportance | None
    costs: Costs
    search: Sequence[str] = ()
    gains: Sequence[Gain] = ()

    def of_sweep(self) -> dict[str, float | None]:
        """Metrics of the sweep's run."""
        found: dict[str, float | None] = {}
        if self.ranked:
            found |= {metric_key(METRICS[name].title): self.ranked.leader.means[name] for name in OF_THE_PAPER}
            found["tied_set_size"] = float(len(self.ranked.tied)) or None
        found["cells_done"] = float(sum(result.done for result in self.results))
        if self.importance:
            found |= _shares("importance", self.importance.at_one)
            found |= _shares("importance/at_best_length", self.importance.at_best) if self.importance.at_best else {}
        for gain in self.gains:
            ends = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
            found |= {metric_key(f"{_place(gain)}/{end}", "tuned"): value for end, value in ends.items()}
        found |= {f"cost/{stage}_seconds": seconds for stage, seconds in self.costs.total.items()}
        return {**found, "cost/saved_seconds": self.costs.saved}

    def tags_of_sweep(self) -> dict[str, str]:
        """The winner's place as tags of the sweep's run, and what searches for parameters have found."""
        winner = self.ranked.leader.contender.axes if self.ranked else {}
        best = {f"best.{axis}": winner[axis] for axis in AXES if axis in winner}
        return {**best, **{metric_key(_place(gain), "tuned"): params_text(gain.params) for gain in self.gains}}

    def of_cells(self, results: Sequence[CellResult]) -> dict[str, float | None]:
        """Metrics of a cell, or of the seeds of one, beside its scores: its place in the ranking, and costs."""
        row = self.standing(results)
        own, shared = (
            sum(sum(self.costs.by_cell[result.cell.key][part].values()) for result in results) for part in (0, 1)
        )
        found: dict[str, float | None] = {"cost/own_seconds": own, "cost/shared_seconds": shared}
        if row is None:
            return found
        tied = None if row.tied is None else float(row.tied)
        best = {"best_length": row.length, "bound_low": row.lower, "bound_high": row.upper}
        return {**found, "tied": tied, "p_best": row.p_best, **best}

    def tags_of(self, results: Sequence[CellResult]) -> dict[str, str]:
        """The same as words: whether the cell, or the seeds of one, lead, and whether they may be the best."""
        removed = next((result.removed for result in results if result.removed), None)
        if removed is not None:
            return {TIED_TAG: "no", LEADER_TAG: "no", REMOVED_TAG: removed.text}
        row = self.standing(results)
        if self.ranked is None or row is None:
            return {}
        tied = "one seed: not known" if row.tied is None else "yes" if row.tied else "no"
        return {TIED_TAG: tied, LEADER_TAG: "yes" if row is self.ranked.leader else "no"}

    def standing(self, results: Sequence[CellResult]) -> Ranked | None:
        """The row of the ranking that these are in."""
        return next((row for result in results if (row := self._rows.get(_of_one(result)))), None)

    @cached_property
    def _rows(self) -> Mapping[tuple[object, ...], Ranked]:
        rows = self.ranked.rows if self.ranked else ()
        return {_of_one(result): row for row in rows for result in row.contender.results.values()}


def verdict(
    results: Sequence[CellResult], store: Store, search: Sequence[str] = (), gains: Sequence[Gain] = ()
) -> Verdict:
    """What can be said of the results, as far as they go, and of searches for the best cell and for parameters."""
    halves = Halves(store)
    try:
        ranked = ranking(results, halves, Criterion())
    except UserError:
        ranked = None
    if ranked is not None and not ranked.rows:
        ranked = None
    importance = None
    if ranked is not None:
        try:
            importance = axis_importance(results, halves, ranked.criterion, to_finish="")
        except UserError:
            importance = None
    return Verdict(results, ranked, importance, costs(results), search, gains)


def _shares(group: str, importance: Importance) -> dict[str, float | None]:
    return {f"{group}/{':'.join(share.axes) or 'rest'}": share.value for share in importance.shares}


def _place(gain: Gain) -> str:
    """Where something was searched, as a key of MLflow's may have it."""
    return " ".join([gain.searched, *(gain.axes[axis] for axis in ("init", "deploy", "model", "budget"))])


def _of_one(result: CellResult) -> tuple[object, ...]:
    return identity(result.cell.axes, [result])
