"""A sweep without Ray: every cell in this process, one after the other."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

from time_ray.clip.threads import torch_threads
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator, take_all
from time_ray.cluster.polling import polling
from time_ray.cluster.work import work
from time_ray.core.grid import Cell
from time_ray.events import TrialEvent
from time_ray.model_needs import needs_by_model
from time_ray.store.store import Store
from time_ray.study import Study


def run_here(
    study: Study,
    store: Store,
    cells: Sequence[Cell],
    coordinator: LocalCoordinator,
    take: Callable[[TrialEvent], None],
    profiles: str | None = None,
) -> None:
    """Every cell has run as far as it can.

    Args:
        study: The study of the cells.
        store: Where weights and scores are kept.
        cells: What is to be run.
        coordinator: By whom it can be stopped.
        take: Called with every event, from another thread.
        profiles: The folder on the storage for traces; None: none are made.

    """
    backend = SweepBackend(study, store, coordinator, profiles=profiles)
    needs = needs_by_model(study.experiment)
    with polling(partial(take_all, coordinator, take)):
        for threads, group in groupby(cells, lambda cell: needs[cell.setting.model.label].threads):
            with torch_threads(threads):
                work(list(group), backend)
