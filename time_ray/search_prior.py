"""What earlier sweeps on a storage say of variances: a search that begins there needs fewer seeds.

A sweep is asked about a model and budget only if its seeds are those of the new one in all but number: the same base,
data, stream, mixture, training and evaluation. Pairs of cells count by their inits, as these decide how much they vary.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.searching import (
    SEARCHES,
    Candidate,
    candidates,
    final_scores,
    kind_of,
    search_key,
    search_metric,
)
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.tied_best import NO_PRIOR, Prior, prior_of_pairs
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study, find_datasets, resolve
from time_ray.tracking.history import Started, all_started

Values = NDArray[np.float64]


def known_before(study: Study, files: Files) -> Mapping[str, Any]:
    """What the search of this study knew when it began, or would know if it began now.

    Returns:
        `known`: for each model and budget (`of`) of which an earlier sweep tells most, its name (`sweep`), how many of
        its `cells` and `seeds` tell it, the prior of each two inits (`pairs`), and `means` of cells by init.

    """
    store = Store(files)
    stands = store.entry(SEARCHES, search_key(study))
    return stands if stands is not None else {"known": list(_known(study, files, store))}


def remember(study: Study, files: Files) -> None:
    """The search of this study knows from now on what it knew when it began, whatever else is swept meanwhile."""
    store = Store(files)
    if study.experiment.search is not None and store.entry(SEARCHES, search_key(study)) is None:
        store.record(SEARCHES, search_key(study), known_before(study, files))


def _known(study: Study, files: Files, store: Store) -> Iterator[dict[str, Any]]:
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for sweep in all_started(store):
        if len(sweep.values.get("seed", ())) > 1 and (earlier := _opened(sweep, files)) is not None:
            for found in _told(study, earlier, store):
                place = tuple(found["of"])
                if place not in best or _df(found) > _df(best[place]):
                    best[place] = found
    yield from best.values()


def _df(found: Mapping[str, Any]) -> int:
    return (int(found["cells"]) - 1) * (int(found["seeds"]) - 1)


def _opened(sweep: Started, files: Files) -> Study | None:
    """None if the experiment is one no longer: its data or its plugins are gone, or an earlier version wrote it."""
    try:
        experiment = Experiment.model_validate({**sweep.values, "storage": None, "search": None})
        return resolve(experiment, find_datasets(experiment, files))
    except (UserError, ValueError):
        return None


def _told(study: Study, earlier: Study, store: Store) -> Iterator[dict[str, Any]]:
    """What an earlier sweep says of each model and budget."""
    same = study.experiment.model_copy(update={"seed": earlier.experiment.seed, "search": None})
    ours = {setting.key for setting in resolve(same, study.datasets).settings}
    comparable = [one for one in candidates(earlier) if all(c[0].setting.key in ours for c in one.cells.values())]
    for of in dict.fromkeys(kind_of(one)[:2] for one in comparable):
        scored = _scored([one for one in comparable if kind_of(one)[:2] == of], search_metric(study), store)
        values = np.array([row for _, row in scored])
        if len(scored) > 1 and values.shape[1] > 1:
            inits = [kind_of(one)[2] for one, _ in scored]
            yield {
                "sweep": earlier.experiment.name,
                "of": list(of),
                "cells": len(scored),
                "seeds": values.shape[1],
                "pairs": list(_pairs(inits, values)),
                "means": [{"init": init, "value": float(row.mean())} for init, row in zip(inits, values, strict=True)],
            }


def _scored(found: Sequence[Candidate], metric: str, store: Store) -> list[tuple[Candidate, list[float]]]:
    """Candidates that have a score on every seed."""
    rows = [(one, final_scores([one.cells[seed][0] for seed in sorted(one.cells)], store, metric)) for one in found]
    return [(one, values) for one, values in rows if not np.isnan(values).any()]


def _pairs(inits: Sequence[str], values: Values) -> Iterator[dict[str, Any]]:
    """The prior of each two inits, where pairs of their cells tell one."""
    for one, other in combinations_with_replacement(dict.fromkeys(inits), 2):
        a, b = (values[[init == name for init in inits]] for name in (one, other))
        prior = prior_of_pairs(a, None if one == other else b)
        if prior != NO_PRIOR:
            yield {"inits": [one, other], **_written(prior)}


def _written(prior: Prior) -> dict[str, float]:
    """JSON has no infinity: with as many degrees of freedom as were pooled a prior is not trusted less."""
    return {"df": min(prior.df, prior.pooled), "variance": prior.variance, "pooled": prior.pooled}
