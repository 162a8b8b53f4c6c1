"""Candidates for the parameters of a technique: suggested by Optuna, merged and scored here.

They are suggested in rounds, each by the scores of all rounds before: what is tried depends on the seed and on scores
alone, and on nothing that runs at once. So a search that was broken off comes to the same end.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from time_ray.analysis.final_score import final_score
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.work import one_line
from time_ray.core.errors import StoreError
from time_ray.core.parameter_range import Range
from time_ray.core.statistics import mean
from time_ray.core.tuning import Candidate, Tuning
from time_ray.loop import run_to_end
from time_ray.per_image import PerImage
from time_ray.realize import pauses
from time_ray.study import candidate

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


def sampler(seed: int) -> "BaseSampler":
    """What suggests: the tree-structured Parzen estimator (https://papers.nips.cc/paper/4443)."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.samplers.TPESampler(seed=seed)


def space(ranges: Mapping[str, Range]) -> "dict[str, BaseDistribution]":
    """The ranges as Optuna has them."""
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(one.low), int(one.high), log=one.log)
        if one.whole
        else FloatDistribution(one.low, one.high, log=one.log)
        for name, one in ranges.items()
    }


def candidates_here(
    tuning: Tuning, backend: SweepBackend, draining: Callable[[], bool], told: Callable[[int], None]
) -> list[Candidate]:
    """Every candidate of the search, in order; fewer once the sweep is to stop.

    Args:
        tuning: the search.
        backend: what merges and evaluates.
        draining: whether to stop.
        told: hears how many are scored, after each round.

    """
    import optuna

    settings, found = tuning.settings, list[Candidate]()
    study = optuna.create_study(direction="maximize", sampler=sampler(settings.seed))
    if tuning.start is not None:
        study.enqueue_trial(dict(tuning.start))
    for count in _rounds(settings.candidates, settings.at_once):
        asked = [study.ask(space(tuning.ranges)) for _ in range(count)]
        for trial in asked:
            if draining():
                return found
            found.append(scored(tuning, trial.params, backend))
        for trial, one in zip(asked, found[-count:], strict=True):
            failed = one.value is None
            study.tell(trial, one.value, state=optuna.trial.TrialState.FAIL if failed else None)
        told(len(found))
    return found


def _rounds(total: int, at_once: int) -> Iterator[int]:
    yield from (min(at_once, total - begun) for begun in range(0, total, at_once))


def scored(tuning: Tuning, suggested: Mapping[str, Any], backend: SweepBackend) -> Candidate:
    """What was suggested, as it is tried, and its mean score over the seeds. Raises StoreError."""
    params = tuning.rounded(suggested)
    cells = candidate(tuning, params)
    try:
        for cell in cells:
            for pause, _ in zip(pauses(), run_to_end(cell, backend), strict=False):
                time.sleep(pause)
    except StoreError:
        raise  # nothing could be kept: no other candidate fares better
    except Exception as error:  # noqa: BLE001 whatever it is, other candidates go on
        backend.store.files.check_there()  # unless nothing can
        return Candidate(params, None, one_line(error))
    images = PerImage(backend.store)
    values = [final_score(cell, images, tuning.by, "select") for cell in cells]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Candidate(params, None, f"{tuning.by} is not defined for it")
    return Candidate(params, mean(known))
