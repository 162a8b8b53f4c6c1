"""Searches for parameters within a sweep: what is asked of Ray, or done in this process, and what came out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

from time_ray.cluster.coordinator import LocalCoordinator, take_all
from time_ray.cluster.messages import RunTuning
from time_ray.cluster.polling import polling
from time_ray.cluster.room import Request
from time_ray.cluster.trial import Scratch
from time_ray.core.errors import UserError
from time_ray.core.tuning import Candidate, Tuning
from time_ray.events import TrialEvent
from time_ray.found_params import write_found
from time_ray.store.store import Store
from time_ray.study import Study

MAX_FAILURES = 3  # restarts of a candidate whose process or node was lost


def note_found(
    study: Study, store: Store, tuning: Tuning, candidates: Sequence[Candidate], failures: dict[str, str]
) -> None:
    """A search is over: the store and the study know the best of its candidates, or the failures why there is none."""
    lost = tuning.settings.candidates - len(candidates)
    if lost:
        failures[tuning.name] = f"{lost} of {tuning.settings.candidates} candidates were lost; the same command goes on"
        return
    whole = [replace(one, params=tuning.rounded(one.params)) for one in candidates]  # JSON made floats of them
    best = write_found(store, tuning, whole)
    if best is None:
        failures[tuning.name] = f"all {len(candidates)} candidates failed: {candidates[0].error}"
    else:
        study.found[tuning.key] = best


def check_optuna(study: Study) -> None:
    """Raises UserError where parameters are to be searched, and what suggests them is not installed."""
    if study.untuned and find_spec("optuna") is None:
        ranges = ", ".join(dict.fromkeys(tuning.label for tuning in study.untuned))
        raise UserError(f"technique {ranges}: ranges are searched by Optuna; pip install 'time_ray[search]'")


def tune_here(
    study: Study,
    store: Store,
    coordinator: LocalCoordinator,
    take: Callable[[TrialEvent], None],
    say: Callable[[str], None],
    failures: dict[str, str],
) -> None:
    """Searches ran in this process, one after the other, until the coordinator was asked to stop.

    Args:
        study: The study of the searches.
        store: Where scores are kept, and what is found.
        coordinator: By whom it can be stopped.
        take: Called with every event, from another thread.
        say: Hears how far a search is.
        failures: Learns why searches failed, by their names.

    """
    from time_ray.cluster.backend import SweepBackend
    from time_ray.cluster.candidates import candidates_here

    backend = SweepBackend(study, store, coordinator)
    with polling(partial(take_all, coordinator, take)):
        for tuning in study.untuned:
            told = partial(_say_how_far, say, tuning)
            candidates = candidates_here(tuning, backend, coordinator.draining, told)
            if coordinator.draining():
                return
            note_found(study, store, tuning, candidates, failures)


def _say_how_far(say: Callable[[str], None], tuning: Tuning, scored: int) -> None:
    say(f"searching {tuning.name}: {scored} of {tuning.settings.candidates} candidates")


def run_tuning(tuning: Tuning, request: Request, job: bytes, coordinator: str, scratch: Scratch) -> RunTuning:
    """A search as it is asked of Ray."""
    return RunTuning(
        tuning=tuning.key,
        ranges=tuning.ranges,
        start=tuning.start,
        candidates=tuning.settings.candidates,
        at_once=tuning.settings.at_once,
        seed=tuning.settings.seed,
        request=request,
        max_failures=MAX_FAILURES,
        job=job,
        coordinator=coordinator,
        scratch=scratch,
    )
