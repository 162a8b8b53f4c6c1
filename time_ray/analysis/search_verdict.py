"""What a search has found, in words: survivors, what is guaranteed of them, and its cost beside that of the grid."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from time_ray.analysis.costs import costs
from time_ray.analysis.searching import NOTHING_KNOWN, SEARCHES, Searched, search_key, searched
from time_ray.core.metrics import METRICS
from time_ray.core.plan import plan
from time_ray.core.quantities import duration
from time_ray.results import read_results
from time_ray.store.store import Store
from time_ray.study import Study

MOST_SURVIVORS = 6  # named


@dataclass(frozen=True)
class SearchCost:
    """Trainings of a search, and those of the grid on the seeds that it might have run.

    Attributes:
        ran: of the search.
        shared: of the grid, each model once.
        unshared: of the grid, if every cell trained its own.
        seconds: of one training, as measured; None where nothing was.

    """

    ran: int
    shared: int
    unshared: int
    seconds: float | None

    @property
    def text(self) -> str:
        """It in one line."""
        shares = f"{100 * self.ran / self.shared:.0f} % of the grid's {self._counted(self.shared)}"
        return f"{self._counted(self.ran)}: {shares}, or {self._counted(self.unshared)} if nothing was shared"

    def _counted(self, trainings: int) -> str:
        return f"{trainings} trainings" + ("" if self.seconds is None else f" ({duration(trainings * self.seconds)})")


def search_cost(found: Searched, store: Store) -> SearchCost:
    """The cost of a search as far as it is."""
    ran, full = plan(found.ran), plan(found.asked)
    spent = costs(read_results(found.ran, store)).total.get("train", 0.0)
    seconds = spent / ran.trainings_distinct if spent and ran.trainings_distinct else None
    return SearchCost(ran.trainings_distinct, full.trainings_distinct, full.trainings_asked, seconds)


def search_lines(study: Study, store: Store, failed: Collection[str] = ()) -> list[str]:
    """What is said at the end of a search; nothing for a full grid.

    Args:
        study: with its `search`.
        store: where its results are.
        failed: cells, by key, that will have no score.

    """
    found = searched(study, store, failed)
    if found is None:
        return []
    known: Mapping[str, Any] = store.entry(SEARCHES, search_key(study)) or NOTHING_KNOWN
    whence = [known_text(known["known"])] if found.search.mode == "race" else []
    return [*_survivors(found), _guarantee(found), *whence, search_cost(found, store).text]


def _survivors(found: Searched) -> Iterator[str]:
    seeds = len(found.selection.ran)
    names = [one.name for one in found.survivors]
    more = f" and {len(names) - MOST_SURVIVORS} more" if len(names) > MOST_SURVIVORS else ""
    which = ", ".join(names[:MOST_SURVIVORS]) + more
    how = "" if found.selection.over else ", and it is not over"
    count = f"{len(names)} of {len(found.candidates)} cells are left after {seeds} of {len(found.seeds)} seeds{how}"
    yield f"{found.search.mode}: {count}{', not told apart' if len(names) > 1 else ''}: {which or 'none'}"


def _guarantee(found: Searched) -> str:
    title = METRICS[found.metric].title
    where = "the half of the test images that selects" if found.part == "select" else "the test images"
    if found.search.mode == "halve":
        return f"halving guarantees nothing of the survivors: it goes by means of {title} on {where}"
    sure = 100 * (1 - found.search.delta)
    what = f"a survivor is within {found.search.epsilon:g} {title} of the best"
    return f"with a probability of {sure:g} %, {what} on {where}, as far as differences between seeds are normal"


def known_text(known: Sequence[Mapping[str, Any]]) -> str:
    """From which earlier sweeps variances are known; see `time_ray.search_prior`."""
    told = [f"{one['sweep']} ({' '.join(one['of'])}: {one['cells']} cells, {one['seeds']} seeds)" for one in known]
    return f"variances are known from sweep {', '.join(told)}" if told else "variances are those of this sweep alone"
