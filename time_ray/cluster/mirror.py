"""MLflow is fed beside the sweep: no cell ever waits for it or fails because of it."""

import threading
from collections.abc import Callable

from time_ray.cluster.tracking import Tracker
from time_ray.core.grid import Cell
from time_ray.results import read_results
from time_ray.store.files import Files
from time_ray.study import Study

PAUSE_SECONDS = 2.0


class Mirror:
    """A thread that copies cells into MLflow soon after they change, and all of them at the end."""

    def __init__(self, study: Study, files: Files, make_tracker: Callable[[Study, Files], Tracker] = Tracker) -> None:
        self.error: Exception | None = None
        self._study = study
        self._files = files
        self._make_tracker = make_tracker
        self._changed: dict[str, Cell] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ok = True
        self._thread = threading.Thread(target=self._follow, daemon=True, name="mlflow")
        self._thread.start()

    def changed(self, cell: Cell) -> None:
        """The cell has a new row."""
        with self._lock:
            self._changed[cell.key] = cell

    def finish(self, *, ok: bool) -> None:
        """Everything there is was copied, or `error` says why not."""
        for cell in self._study.cells:
            self.changed(cell)
        self._ok = ok
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        try:
            tracker = self._make_tracker(self._study, self._files)
            tracker.start()
            while not self._over.wait(PAUSE_SECONDS):
                self._copy(tracker)
            self._copy(tracker)
            tracker.finish(ok=self._ok)
        except Exception as error:  # noqa: BLE001 MLflow may fail in any way; the sweep says so at its end
            self.error = error

    def _copy(self, tracker: Tracker) -> None:
        with self._lock:
            cells, self._changed = list(self._changed.values()), {}
        tracker.sync(read_results(cells, tracker.store))
