"""Figures as artifacts of runs: drawn anew only where what they show has changed."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache

from time_ray.results import CellResult
from time_ray.tracking.runs import Run, Runs
from time_ray.tracking.verdict import Verdict

FOLDER = "figures"
FIGURES_TAG = "time_ray.figures"  # what the figures were drawn of

log = logging.getLogger(__name__)


Drawn = Iterator[tuple[str, bytes]]  # file name and SVG, drawn when it is asked for


def of_sweep(found: Verdict) -> Drawn:
    """Those of a sweep of which something is finished."""
    from time_ray.figures import artifacts  # imports matplotlib, which only those need whose runs lack figures

    if found.ranked is not None:
        yield from artifacts.of_sweep(found.results, found.ranked, found.importance, found.costs)


def of_summary(results: Sequence[CellResult]) -> Drawn:
    """Those of a cell over its seeds."""
    from time_ray.figures import artifacts

    yield from artifacts.of_summary(results)


def log_figures(runs: Runs, run: Run, figures: Drawn, shown: str) -> None:
    """The run has these figures.

    Args:
        runs: of the experiment.
        run: whose figures they are.
        figures: of the run. One that cannot be drawn ends them.
        shown: a key of what they show; nothing is drawn for a run that shows this already.

    """
    if run.tags.get(FIGURES_TAG) == shown:
        return
    runs.put(run, {f"{FOLDER}/{name}": data for name, data in _drawn(figures)})
    runs.tag(run, {FIGURES_TAG: shown})


def _drawn(figures: Drawn) -> Drawn:
    try:
        yield from figures
    except Exception as error:  # noqa: BLE001 whatever a figure lacks, all numbers are there
        _not_drawn(" ".join(f"{type(error).__name__}: {error}".split()))


@cache
def _not_drawn(why: str) -> None:
    """Said once a process."""
    log.warning("MLflow: a figure is not there: %s", why)
