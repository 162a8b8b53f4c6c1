"""A search on the results in the store: what is live, what was removed when and by which, and what is to be run.

Nothing of it is kept but what was known of variances when it began (see `time_ray.search_prior`): it follows from the
scores, so that a sweep that was ended at any instant goes on to the same decisions.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from time_ray.analysis.contenders import AXES, common_technique
from time_ray.analysis.halves import Halves, MissingOutcomesError, Part
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell, without_lengths
from time_ray.core.keys import key_of
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.core.racing import FAILED, Halve, PairPriors, Race, Rule, Selection, select
from time_ray.core.search import Search
from time_ray.results import CellResult, Removed, read_results
from time_ray.store.store import Store
from time_ray.study import Study

SEARCHES = "searches"  # the kind of entries that say what was known of variances
NOTHING_KNOWN: Mapping[str, Any] = {"known": []}


@dataclass(frozen=True, eq=False)
class Candidate:
    """What is searched among: cells that serve the same models, on every seed."""

    cells: Mapping[int, Sequence[Cell]]  # by seed
    name: str

    @property
    def first(self) -> Cell:
        """One of them, to speak of their place on the axes."""
        return next(iter(self.cells.values()))[0]


@dataclass(frozen=True, eq=False)
class Searched:
    """A search, as far as it is.

    Attributes:
        search: how it is done.
        metric: by which; KA where GM or ZS is asked for and nothing is held out.
        part: of the test images that decide: the half that selects, or all where scores have no outcomes.
        seeds: those that may be run, in order.
        candidates: all that is searched among.
        selection: what is decided.
        cells: every cell of the study.

    """

    search: Search
    metric: str
    part: Part
    seeds: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    selection: Selection
    cells: tuple[Cell, ...]

    @cached_property
    def removed(self) -> Mapping[str, Removed]:
        """By cell key, why it is run no more; a candidate's cells of all seeds."""
        found: dict[str, Removed] = {}
        for one in self.selection.removed:
            by, ahead = ("", None) if one.by == FAILED else (self.candidates[one.by].name, one.ahead)
            title = METRICS[self.metric].title
            why = Removed(one.seeds, by, ahead, title, sure=self.search.mode == "race")
            found |= {cell.key: why for cell in chain(*self.candidates[one.cell].cells.values())}
        return found

    @cached_property
    def wanted(self) -> tuple[Cell, ...]:
        """What is to be run now: live cells on the seed that is waited for; at the end survivors, at all lengths.

        What was to be run for earlier seeds is there, or has failed.
        """
        last = self.seeds[: len(self.selection.ran)]
        if self.selection.over:
            keys = {cell.key for one in self.survivors for seed in last for cell in one.cells[seed]}
            return tuple(cell for cell in self.cells if cell.key in keys or _is_bound(cell, last))
        keys = {cell.key for number in self.selection.live for cell in self.candidates[number].cells[last[-1]]}
        return without_lengths([cell for cell in self.cells if cell.key in keys])

    @cached_property
    def survivors(self) -> tuple[Candidate, ...]:
        """What has not been removed."""
        return tuple(self.candidates[number] for number in self.selection.live)

    @cached_property
    def ran(self) -> tuple[Cell, ...]:
        """Every cell that was run, or is being run."""
        numbers = enumerate(self.selection.ran)
        return tuple(c for s, live in numbers for number in live for c in self.candidates[number].cells[self.seeds[s]])

    @property
    def asked(self) -> tuple[Cell, ...]:
        """The full grid on all seeds that may be run."""
        return tuple(cell for one in self.candidates for seed in self.seeds for cell in one.cells[seed])


def candidates(study: Study) -> tuple[Candidate, ...]:
    """All that a search of the study is among, in the order of its cells."""
    by_place: dict[tuple[str, ...], dict[int, Cell]] = {}
    for cell in study.cells:
        by_place.setdefault(cell.place, {})[cell.setting.seed] = cell
    shared = set.intersection(*(set(cells) for cells in by_place.values()))
    same: dict[tuple[str, ...], list[dict[int, Cell]]] = {}
    for cells in by_place.values():
        one = next(iter(cells.values()))
        same.setdefault(tuple(step.deployed.key for step in one.walk()), []).append(cells)
    techniques: dict[tuple[str, ...], set[str]] = {}
    for place in by_place:
        techniques.setdefault(_but_for_technique(place), set()).add(place[AXES.index("technique")])
    return tuple(
        Candidate({seed: [cells[seed] for cells in group] for seed in shared}, _name(group, techniques))
        for group in same.values()
    )


def _name(group: Sequence[Mapping[int, Cell]], techniques: Mapping[tuple[str, ...], Collection[str]]) -> str:
    """That of the first place, with all techniques that serve the same there."""
    places = [next(iter(cells.values())).place for cells in group]
    init, deploy, _, model, budget = places[0]
    every = techniques[_but_for_technique(places[0])]
    names = dict.fromkeys(place[AXES.index("technique")] for place in places)
    return f"{init}/{deploy} {common_technique(list(names), every)} · {model} {budget}"


def _but_for_technique(place: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for axis, value in zip(AXES, place, strict=True) if axis != "technique")


def kind_of(candidate: Candidate) -> tuple[str, str, str]:
    """What candidates have in common whose differences vary alike: model, budget and init."""
    axes = candidate.first.axes
    return axes["model"], axes["budget"], axes["init"]


def searched(study: Study, store: Store, failed: Collection[str] = ()) -> Searched | None:
    """The search of a study, as far as the store has its scores; None where the full grid is asked for.

    Args:
        study: with its `search`.
        store: where scores are, and what was known of variances.
        failed: cells, by key, that can go no further. A candidate whose cells of a seed will have no score leaves.

    Raises:
        UserError: the metric is not defined for these cells.

    """
    search = study.experiment.search
    if search is None:
        return None
    found, seeds = candidates(study), search_seeds(study)
    metric = search_metric(study)
    rule = search_rule(search, found, len(seeds), store.entry(SEARCHES, search_key(study)) or NOTHING_KNOWN)
    lost = np.array([[_is_lost(one.cells[seed], store, failed) for seed in seeds] for one in found])
    halves = Halves(store)

    def selected(part: Part) -> Selection:
        """Only scores on which it depends are read."""
        values = np.full((len(found), len(seeds)), np.nan)
        while True:
            selection = select(values, lost, rule)
            column = len(selection.ran) - 1
            waited = [number for number in selection.live if np.isnan(values[number, column])]
            if selection.over or not waited:
                return selection
            cells = [found[number].cells[seeds[column]][0] for number in waited]
            values[waited, column] = _scores(cells, store, halves, metric, part)
            if np.isnan(values[waited, column]).any():
                return select(values, lost, rule)

    part: Part = "select"
    try:
        selection = selected(part)
    except MissingOutcomesError:
        part = "all"
        selection = selected(part)
    return Searched(search, metric, part, seeds, found, selection, study.everything)


def _is_lost(cells: Sequence[Cell], store: Store, failed: Collection[str]) -> bool:
    """Whether all of them have failed, and before they were scored."""
    return all(cell.key in failed for cell in cells) and not read_results(cells[:1], store)[0].scored


def search_seeds(study: Study) -> tuple[int, ...]:
    """The seeds that a search may run, in order."""
    most = study.experiment.search.max_seeds if study.experiment.search else None
    shared = {cell.setting.seed for cell in study.cells}
    return tuple(seed for seed in study.experiment.seed if seed in shared)[:most]


def search_metric(study: Study) -> str:
    """What a search goes by: KA where GM or ZS is asked for and nothing is held out."""
    metric = study.experiment.search.by if study.experiment.search else "gm"
    return "ka" if metric in OF_THE_PAPER and not study.settings[0].evaluation else metric


def final_scores(cells: Sequence[Cell], store: Store, metric: str) -> list[float]:
    """What cells score in the end, the higher, the better: on the half that selects, on all where it is not known.

    NaN for what is not scored yet. Raises UserError for what is not defined.
    """
    halves = Halves(store)
    try:
        return _scores(cells, store, halves, metric, "select")
    except MissingOutcomesError:
        return _scores(cells, store, halves, metric, "all")


def _scores(cells: Sequence[Cell], store: Store, halves: Halves, metric: str, part: Part) -> list[float]:
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    scores = []
    for result in read_results(cells, store):
        value = halves.value(result, metric, part) if result.scored else np.nan
        if value is None:
            raise UserError(f"search.by: {metric} is not defined for these cells; search by another metric")
        scores.append(sign * value)
    return scores


def search_key(study: Study) -> str:
    """The name under which lies what a search knew when it began."""
    return key_of("search", search_metric(study), sorted(cell.key for cell in study.cells))


def results_of(study: Study, store: Store, failed: Collection[str] = ()) -> list[CellResult]:
    """Every cell of the study with the rows it has, and whether a search runs it no more."""
    found = searched(study, store, failed)
    if found is None:
        return read_results(study.everything, store)
    final = {cell.key for cell in found.wanted} if found.selection.over else set()
    short = {cell.key: cell for cell in without_lengths([c for c in study.everything if c.key not in final])}
    results = read_results([short.get(cell.key, cell) for cell in study.everything], store)
    return [
        replace(
            result,
            removed=found.removed.get(result.cell.key),
            wanted=not found.selection.over or result.cell.key in final or result.cell.key in failed,
        )
        for result in results
    ]


def _is_bound(cell: Cell, seeds: Sequence[int]) -> bool:
    return cell.multitask and cell.setting.seed in seeds


def search_rule(search: Search, found: Sequence[Candidate], seeds: int, known: Mapping[str, Any]) -> Rule:
    """How candidates leave, with so many seeds at most.

    Args:
        search: as written.
        found: the candidates.
        seeds: the most that are run.
        known: of variances, as an entry of `searches` says it.

    """
    if search.mode == "halve":
        names = [one.first.trajectory for one in found]
        return Halve(np.array([names.index(name) for name in names]))
    return Race(len(found), seeds, search.epsilon, search.delta, _pair_priors(found, known))


def _pair_priors(found: Sequence[Candidate], known: Mapping[str, Any]) -> PairPriors:
    kinds = list(dict.fromkeys(kind_of(one) for one in found))
    df, variance, pooled = (np.zeros((len(kinds), len(kinds))) for _ in range(3))
    for row in (row for one in known["known"] for row in ({**pair, "of": one["of"]} for pair in one["pairs"])):
        places = [(*row["of"], init) for init in row["inits"]]
        if all(place in kinds for place in places):
            a, b = (kinds.index(place) for place in places)
            for pair in ((a, b), (b, a)):
                df[pair], variance[pair], pooled[pair] = row["df"], row["variance"], row["pooled"]
    return PairPriors(np.array([kinds.index(kind_of(one)) for one in found]), df, variance, pooled)
