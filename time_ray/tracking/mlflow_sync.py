"""MLflow is fed beside the sweep: no cell ever waits for it or fails because of it.

The store is its outbox: whatever MLflow lacks, however long it was away, is copied from there.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from time_ray.analysis.searching import results_of
from time_ray.core.errors import StoreError
from time_ray.core.grid import Cell
from time_ray.core.secrets import hidden
from time_ray.results import read_results
from time_ray.store.files import Files
from time_ray.store.lease import lease
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.tracking.host import Host
from time_ray.tracking.tracked import note_tracked
from time_ray.tracking.tracker import UNDISTURBED, Ended, Tracker

PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
PATIENCE_SECONDS = 180.0  # for one cell to be copied, once the sweep is over
CLOSING_SECONDS = 5.0  # that a sweep which is stopped at once waits for its runs to be closed
LAST_TRIES = 3  # in a row and in vain, once the sweep is over

log = logging.getLogger(__name__)


class _NotCopiedError(Exception):
    """A cell cannot be copied, though MLflow answers."""


class MlflowSync:
    """A thread that copies cells into MLflow soon after they change, and all of them at the end.

    Args:
        study: The experiment whose cells are copied.
        files: The storage that they are copied from.
        make_tracker: Opens MLflow; called again after every failure.
        host: The machine of a sweep that runs, whose samples are copied, too; None: nothing runs.

    Attributes:
        lag: Once it is over, what MLflow lacks, and why; None if it lacks nothing.

    """

    def __init__(
        self,
        study: Study,
        files: Files,
        make_tracker: Callable[[Study, Files], Tracker] = Tracker,
        host: Host | None = None,
    ) -> None:
        self.lag: str | None = None
        self._study = study
        self._files = files
        self._make_tracker = make_tracker
        self._tracker: Tracker | None = None
        self._host = host
        self._ended = UNDISTURBED
        self._changed: dict[str, Cell] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._broken_off = threading.Event()
        self._given_up = threading.Event()
        self._failures = 0
        self._why = "stopped before they were copied"
        self._thread = threading.Thread(target=self._follow, daemon=True, name="mlflow")
        self._thread.start()

    def changed(self, cell: Cell) -> None:
        """The cell has a new row."""
        with self._lock:
            self._changed[cell.key] = cell

    def finish(self, ended: Ended = UNDISTURBED) -> None:
        """Everything there is was copied, or `lag` says what was not. Ctrl-C gives up."""
        self._ended = ended
        for result in results_of(self._study, Store(self._files), ended.failed):
            if result.done or result.due:  # what a search does without has no run
                self.changed(result.cell)
        self._over.set()
        try:
            left = -1
            while self._thread.is_alive() and left != len(self._changed):
                left = len(self._changed)
                self._thread.join(PATIENCE_SECONDS)
        except KeyboardInterrupt:
            pass
        if self._thread.is_alive():
            self.give_up()

    def break_off(self, ended: Ended) -> None:
        """Runs are closed, if MLflow answers soon; nothing more is copied, and `lag` says what is left."""
        self._ended = replace(ended, interrupted=True)
        self._broken_off.set()
        self._over.set()
        with contextlib.suppress(KeyboardInterrupt):
            self._thread.join(CLOSING_SECONDS)
        self.give_up()

    def give_up(self) -> None:
        """Nothing more is copied, and `lag` says what is left."""
        self._given_up.set()
        self._over.set()
        with self._lock:
            cells = list(self._changed.values())
        left = sum(bool(result.rows) for result in read_results(cells, Store(self._files)))
        what = f"{left} of {len(self._study.everything)} cells are not there yet" if left else "its runs are not closed"
        self.lag = f"{what} ({self._why})"

    def _follow(self) -> None:
        while not self._given_up.is_set():
            over = self._over.wait(min(PAUSE_SECONDS * 2**self._failures, LONGEST_PAUSE_SECONDS))
            if self._broken_off.is_set():
                self._close()
                return
            if self._host is not None:
                self._host.sample()
            if self._caught_up(over=over) and over:
                return
            if over and self._failures >= LAST_TRIES:
                self._close()
                self.give_up()
            elif over:
                self._given_up.wait(PAUSE_SECONDS)

    def _caught_up(self, *, over: bool) -> bool:
        """Whether MLflow has what it should have; if not, it is asked again later, from the start."""
        try:
            self._copy()
            self._copy_host()
            if over and not (self._broken_off.is_set() or self._given_up.is_set()):
                self._conclude(self._connected())
        except Exception as error:  # noqa: BLE001 MLflow may fail in any way; the sweep says so at its end
            self._tracker = None
            self._failures += 1
            self._why = _one_line(error)
            return False
        self._failures = 0
        return True

    def _conclude(self, tracker: Tracker) -> None:
        """What is found is there, and so is every cell: compared, as another writer may have been at them."""
        results = results_of(self._study, tracker.store, self._ended.failed)
        tracker.finish(results, self._ended)
        for cell in (lacking := tracker.lacking(results)):
            self.changed(cell)
        if lacking:
            raise _NotCopiedError(f"{lacking[0].name}: MLflow holds another state of it than the store")

    def _copy(self) -> None:
        """Cell by cell, so that each is copied once, and one that cannot be copied holds up no other."""
        failed: list[tuple[Cell, Exception]] = []
        try:
            while (cell := self._next()) is not None:
                if (error := self._error_of(cell)) is None:
                    continue
                failed.append((cell, error))
                self._connected()  # not the cell's fault where this fails; and what was known of MLflow is asked anew
        finally:
            for cell, _ in failed:
                self.changed(cell)
        for cell, error in failed:
            raise _NotCopiedError(f"{cell.name}: {_one_line(error)}") from error

    def _copy_host(self) -> None:
        """What cannot be copied of it now waits; nothing else waits for it."""
        if self._host is None:
            return
        try:
            self._connected().log_host(self._host)
        except Exception as error:  # noqa: BLE001 see _caught_up
            self._tracker = None
            log.debug("system metrics: %s", _one_line(error))

    def _error_of(self, cell: Cell) -> Exception | None:
        """None: the cell was copied."""
        try:
            tracker = self._connected()
            tracker.sync(read_results([cell], tracker.store))
        except Exception as error:  # noqa: BLE001 see _caught_up
            self._tracker = None
            return error
        self._failures = 0
        return None

    def _close(self) -> None:
        """No run stays open for a cell that cannot be copied; where MLflow does not answer, they do."""
        with contextlib.suppress(Exception):
            self._connected().close(self._ended)

    def _connected(self) -> Tracker:
        self._tracker = self._tracker or self._make_tracker(self._study, self._files)
        return self._tracker

    def _next(self) -> Cell | None:
        with self._lock:
            if not self._changed or self._given_up.is_set() or self._broken_off.is_set():
                return None
            return self._changed.pop(next(iter(self._changed)))


def copy_all(study: Study, files: Files) -> str | None:
    """MLflow holds all that the store has of this study, and the files that it was given before are as they were.

    Returns:
        What it lacks, and why, if it could not be written; else None.

    Raises:
        UserError: A sweep of this name runs: it copies its cells by itself.
        StoreError: Another process took over the storage, or it is gone.

    """
    lost: list[str] = []

    def lose(why: str) -> None:
        lost.append(why)
        sync.give_up()

    with lease(files, study.experiment.name, lose):
        sync = MlflowSync(study, files, partial(Tracker, verified=set()))
        sync.finish()
        if lost:
            raise StoreError(lost[0])
        results = results_of(study, Store(files))
        if sync.lag is None and not any(result.due for result in results):
            note_tracked(study, files)
    return sync.lag


def _one_line(error: Exception) -> str:
    text = hidden(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= 200 else f"{text[:200]}..."
