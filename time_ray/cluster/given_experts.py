"""Given experts on Ray: copied into the store before trials start, so that no worker needs the folder they lie in."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from time_ray.cluster.coordinator import LocalCoordinator, take_all
from time_ray.core.errors import CellError
from time_ray.core.grid import Cell
from time_ray.core.recipe import Trained
from time_ray.events import TrialEvent
from time_ray.realize import obtain
from time_ray.store.store import Store
from time_ray.study import Study, given_in


def missing_experts(cells: Iterable[Cell], store: Store) -> list[Trained]:
    """The given experts of these cells that the store does not have."""
    settings = {cell.setting.key: cell.setting for cell in cells}
    every = {expert.key: expert for _, expert in given_in(settings.values())}
    return [expert for key, expert in every.items() if store.entry("weights", key) is None]


def copy_experts(
    experts: Iterable[Trained],
    study: Study,
    store: Store,
    take: Callable[[TrialEvent], None],
    stopping: Callable[[], bool],
) -> None:
    """The store has these experts, but for those whose files cannot be taken: of these their cells fail, and say why.

    Args:
        experts: That are given.
        study: Whose experts they are.
        store: Where they go.
        take: Called with every event.
        stopping: Whether to leave the rest.

    Raises:
        StoreError: The storage cannot be written.

    """
    from time_ray.cluster.backend import SweepBackend  # imports torch

    coordinator = LocalCoordinator()
    backend = SweepBackend(study, store, coordinator)
    for expert in experts:
        if stopping():
            return
        with suppress(CellError):
            for _ in obtain(expert, backend):
                pass  # nobody else makes it
        backend.settle()
        take_all(coordinator, take)
