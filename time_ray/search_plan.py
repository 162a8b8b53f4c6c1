"""What a search would cost, before it runs: its rule is simulated on scores that are drawn from what is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.searching import (
    Candidate,
    candidates,
    final_scores,
    kind_of,
    search_metric,
    search_rule,
    search_seeds,
)
from time_ray.core.plan import plan
from time_ray.core.racing import Rule, select
from time_ray.search_prior import known_before
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study

DRAWS = 200
ASSUMED_GAPS = 3.0  # standard deviation of cells' true values, in points, where nothing is known
ASSUMED_NOISE = 1.0  # of one cell over seeds, besides what all cells share

Values = NDArray[np.float64]


@dataclass(frozen=True)
class SearchPlan:
    """What a search would train.

    Attributes:
        mode: race or halve.
        seeds: the most that it runs.
        cells: what it is among, those that serve the same models counted once.
        expected: trainings, the mean over draws, with those on all tasks at once where they are asked for.
        worst: trainings if nothing leaves: those of the grid.
        unshared: trainings of the grid if every cell trained its own.
        drawn_from: what the draws rest on.
        known: earlier sweeps by which variances are known: `sweep`, `of` (model and budget), `cells` and `seeds`.

    """

    mode: str
    seeds: int
    cells: int
    expected: int
    worst: int
    unshared: int
    drawn_from: str
    known: tuple[Mapping[str, Any], ...]


def search_plan(study: Study, files: Files) -> SearchPlan | None:
    """The plan of a study's search, whatever of it is done already; None where the full grid is asked for."""
    search = study.experiment.search
    if search is None:
        return None
    found, seeds = candidates(study), search_seeds(study)
    known = known_before(study, files)
    cost = plan([cell for one in found for seed in seeds for cell in one.cells[seed]])
    bounds = plan([cell for cell in study.bounds if cell.setting.seed in seeds]).trainings_distinct
    drawn = _drawn_from(study, found, Store(files), known)
    rule = search_rule(search, found, len(seeds), known)
    trained, begun = _expected(found, drawn, rule, seeds)
    return SearchPlan(
        mode=search.mode,
        seeds=len(seeds),
        cells=len(found),
        expected=round(trained + begun * bounds / len(seeds)),
        worst=cost.trainings_distinct + bounds,
        unshared=cost.trainings_asked + bounds,
        drawn_from=drawn.where,
        known=tuple({name: one[name] for name in ("sweep", "of", "cells", "seeds")} for one in known["known"]),
    )


class Drawn(NamedTuple):
    """True values, a row for each draw or one for all [draws, cells]; deviations over seeds [cells]; whence."""

    means: Values
    noise: Values
    where: str


def _expected(found: Sequence[Candidate], drawn: Drawn, rule: Rule, seeds: Sequence[int]) -> tuple[float, float]:
    """Trainings, and seeds that are begun: means over draws."""
    generator = np.random.default_rng(0)
    trainings = _trainings(found, seeds)
    never = np.zeros((len(found), len(seeds)), dtype=np.bool_)
    trained = begun = 0
    for draw in range(DRAWS):
        noise = drawn.noise[:, None] * generator.normal(size=(len(found), len(seeds)))
        values = drawn.means[draw % len(drawn.means), :, None] + noise
        ran = select(values, never, rule).ran
        every = (trainings[number][place] for place, live in enumerate(ran) for number in live)
        trained += reduce(or_, every).bit_count()
        begun += len(ran)
    return trained / DRAWS, begun / DRAWS


def _trainings(found: Sequence[Candidate], seeds: Sequence[int]) -> list[list[int]]:
    """Of each candidate and seed the experts that it is made of, a bit each: seeds may share given ones."""
    bits: dict[str, int] = {}
    return [
        [
            reduce(or_, (1 << bits.setdefault(step.expert.key, len(bits)) for step in one.cells[seed][0].walk()))
            for seed in seeds
        ]
        for one in found
    ]


def _drawn_from(study: Study, found: Sequence[Candidate], store: Store, known: Mapping[str, Any]) -> Drawn:
    own = _own_scores(study, found, store)
    generator = np.random.default_rng(1)
    if own.shape[1] > 1:
        residuals = own - own.mean(axis=0)
        return Drawn(own.mean(axis=1)[None], residuals.std(axis=1, ddof=1), f"the scores of {own.shape[1]} seeds here")
    noise = _noise(found, known)
    by_kind: dict[tuple[str, str, str], list[float]] = {}
    for one in known["known"]:
        for mean in one["means"]:
            by_kind.setdefault((*one["of"], mean["init"]), []).append(mean["value"])
    if all(kind_of(one) in by_kind for one in found):
        drawn = [generator.choice(by_kind[kind_of(one)], DRAWS) for one in found]
        return Drawn(np.array(drawn).T, noise, "cells of the same inits in an earlier sweep")
    gaps = ASSUMED_GAPS * generator.normal(size=(DRAWS, len(found)))
    about = f"assumed deviations: {ASSUMED_GAPS:g} between cells, {ASSUMED_NOISE:g} over seeds"
    return Drawn(gaps, noise, about)


def _own_scores(study: Study, found: Sequence[Candidate], store: Store) -> Values:
    """Scores of all candidates on the first seeds on which all have one [candidates, seeds]."""
    columns: list[list[float]] = []
    for seed in search_seeds(study):
        scores = final_scores([one.cells[seed][0] for one in found], store, search_metric(study))
        if np.isnan(scores).any():
            break
        columns.append(scores)
    return np.array(columns).T.reshape(len(found), len(columns))


def _noise(found: Sequence[Candidate], known: Mapping[str, Any]) -> Values:
    """A pair's variance is that of two cells."""
    by_kind = {
        (*one["of"], pair["inits"][0]): (pair["variance"] / 2) ** 0.5
        for one in known["known"]
        for pair in one["pairs"]
        if pair["inits"][0] == pair["inits"][1]
    }
    return np.array([by_kind.get(kind_of(one), ASSUMED_NOISE) for one in found])
