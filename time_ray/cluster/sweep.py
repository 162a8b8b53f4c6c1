"""The driver: plan, run what is missing on Ray Tune, feed the display and MLflow, read the results back."""

import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import assert_never

import torch

from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.bundle import work
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.doctor import brief
from time_ray.cluster.polling import polling
from time_ray.cluster.ray_cluster import check_address
from time_ray.cluster.ray_process import RayLostError, RayProcess, folder_root, ray_process
from time_ray.cluster.trial import Job, Scratch
from time_ray.core.grid import Cell
from time_ray.core.plan import plan
from time_ray.data.sources import prepare
from time_ray.events import (
    CellDone,
    CellFailed,
    CellsRunning,
    Event,
    ExpertTrained,
    ModelEvaluated,
    Note,
    Planned,
    Status,
    TaskDone,
    TrialEvent,
)
from time_ray.packing import pack
from time_ray.plugins import installed_in, loaded
from time_ray.rates import read_rates, trajectory_seconds, write_rates
from time_ray.results import CellResult, Outcome, read_results, stored
from time_ray.store.files import Files
from time_ray.store.lease import lease
from time_ray.store.store import Store
from time_ray.study import Study, check_weights
from time_ray.tracking.history import owners
from time_ray.tracking.mlflow_sync import MlflowSync
from time_ray.tracking.tracker import is_tracked, note_tracked, tracking_uri

MAX_ROUNDS = 3  # another round is needed only where a whole trial was lost, for its other cells

Watch = Callable[[Event], None]


def sweep(study: Study, files: Files, watch: Watch) -> Outcome:
    """Run every cell that is not done yet. The same call again resumes, and does nothing once all is done.

    Args:
        study: What to run.
        files: The storage.
        watch: Called with every event (see time_ray.events): what is to do, what trials tell, what the sweep is at.

    Returns:
        How it ended. Cells that failed and an MLflow that did not answer are in it, and raise nothing.

    Raises:
        UserError: It cannot start: the storage cannot be written or is in use by another sweep of this name, weights
            are not there, or Ray cannot be used as it was asked for.
        StoreError: The storage went away meanwhile.

    """
    started = time.monotonic()
    tracking_uri(files)  # a storage that cannot be tracked is refused before anything runs
    if study.experiment.run.workers:
        check_address()
        folder_root()
    files.check_writable()
    with lease(files, study.experiment.name):
        outcome = _Sweep(study, files, watch).run()
    outcome.seconds = time.monotonic() - started
    return outcome


class _Sweep:
    """One sweep while it runs."""

    def __init__(self, study: Study, files: Files, watch: Watch) -> None:
        self.study = study
        self.files = files
        self.store = Store(files)
        self.watch = watch
        self.cells = {cell.key: cell for cell in study.cells}
        self.failures: dict[str, CellFailed] = {}
        self.running: dict[str, set[str]] = {}  # by trial, the cells it is at
        self.drained = False
        self._drain: Callable[[], None] = lambda: None  # lets trials finish what they are at, and stop
        self.mlflow: MlflowSync | None = None

    def run(self) -> Outcome:
        """See sweep."""
        results = read_results(self.study.cells, self.store)
        counts = plan(self.study.cells, stored(self.store))
        self.watch(Planned(counts.trainings_to_do, counts.evaluations_to_do, counts.cells_to_do))
        done = all(result.done for result in results)
        if done and is_tracked(self.study, self.files):
            return Outcome(results)
        if not done:
            check_weights(self.study)
            brief(self.study, self.files, self.watch)
        owners(self.study, self.store)  # noted now, so that MLflow can be told later
        self.mlflow = MlflowSync(self.study, self.files)
        stopped_at_once = False
        if not done:
            prepare(self.study.datasets.all, self._status)
            stopped_at_once = self._interruptible(results)
            results = read_results(self.study.cells, self.store)
        if stopped_at_once:
            self.mlflow.give_up()
        else:
            self._status("writing MLflow")
            self.mlflow.finish()
            write_rates(self.store, results)
        done = all(result.done for result in results)
        if done and self.mlflow.lag is None:
            note_tracked(self.study, self.files)
        return Outcome(results, self.failures, stopped_at_once or (self.drained and not done), self.mlflow.lag)

    def _interruptible(self, results: Sequence[CellResult]) -> bool:
        """Run what is missing. Ctrl-C once finishes what is running; twice stops at once, and then this is True."""
        before = signal.signal(signal.SIGINT, self._interrupted) if _in_main_thread() else None
        try:
            self._run_missing(results)
        except KeyboardInterrupt:
            return True
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
        return False

    def _interrupted(self, *_: object) -> None:
        if self.drained:
            raise KeyboardInterrupt
        self.drained = True
        threading.Thread(target=self._drain, name="drain").start()  # this one may be writing to Ray just now
        self._status("finishing what is running; Ctrl-C again stops at once")

    def _run_missing(self, results: Sequence[CellResult]) -> None:
        settings = self.study.experiment.run
        if settings.workers == 0:
            coordinator = LocalCoordinator()
            todo = [result.cell for result in results if not result.done]
            self._drain = coordinator.drain
            with polling(partial(self._take_all, coordinator)), _torch_threads(settings.threads):
                work(todo, SweepBackend(self.study, self.store, coordinator))
            return
        errors, lost = [], 0
        while self._todo() and lost <= settings.max_failures:
            try:
                errors = self._on_ray()
                break
            except RayLostError as error:
                errors, lost = [str(error)], lost + 1
                self.running.clear()
                self._status(f"{error}{'; starting it again' if lost <= settings.max_failures else ''}")
        self._fail(self._todo(), f"no trial could run it ({_joined(errors)})")

    def _todo(self) -> list[Cell]:
        """Cells to be run, unless we are stopping."""
        if self.drained:
            return []
        cells = [cell for cell in self.study.cells if cell.key not in self.failures]
        return [result.cell for result in read_results(cells, self.store) if not result.done]

    def _on_ray(self) -> list[str]:
        """Trials ran every cell that they could; why the last of them ended early, if they did."""
        self._status("starting Ray")
        errors: list[str] = []
        with ray_process(self.study.experiment.run) as (ray, folder):
            self._drain = ray.drain
            for _ in range(MAX_ROUNDS):
                capacity = ray.capacity()
                if not (todo := self._todo()):
                    break
                errors = self._round(ray, capacity, todo, folder)
        return errors

    def _round(self, ray: RayProcess, capacity: int, todo: Sequence[Cell], folder: Path) -> list[str]:
        """Every cell was given to a trial, and all trials ended; why some of them did so early."""
        settings = self.study.experiment.run
        have = stored(self.store)
        rates = read_rates(self.store, todo)
        bundles = pack(todo, capacity, trajectory_seconds(todo, rates, have), have, one_each=settings.pack == "cell")
        self._status(f"starting {len(bundles)} trials, {min(capacity, len(bundles))} at once")
        experiment = self.study.experiment
        job = Job(
            plugins=loaded(experiment.plugins),
            installed=installed_in(experiment),
            study=pickle.dumps((experiment, self.study.datasets)),
            storage=self.files.uri,
            coordinator=f"time-ray-coordinator-{uuid.uuid4().hex}",
        )
        keys = [[cell.key for cell in bundle] for bundle in bundles]
        with self._scratch(folder) as scratch:
            errors = ray.run_round(keys, job, scratch, self._take)
        # a trial that was lost with cells in hand has failed those cells, and only those
        lost = read_results([self.cells[key] for key in set().union(*self.running.values())], self.store)
        self.running.clear()
        self._fail([result.cell for result in lost if not result.done], f"its trial was lost ({_joined(errors)})")
        return errors

    @contextmanager
    def _scratch(self, folder: Path) -> Iterator[Scratch]:
        """Where Ray may write while the block runs: what several machines need to see goes into the storage."""
        if "RAY_ADDRESS" not in os.environ:
            yield Scratch(str(folder / "scratch"))
            return
        name = self.study.experiment.name
        path = self.files.path("ray", name, uuid.uuid4().hex[:12])
        try:
            yield Scratch(path, None if self.files.is_local else self.files.uri)
        finally:
            self.files.delete_folder("ray", name)  # also what a killed sweep left there: we hold the lease

    def _fail(self, cells: Sequence[Cell], why: str) -> None:
        """The cells have failed for this reason, unless they failed for another before, or we are stopping."""
        for cell in cells:
            if cell.key not in self.failures and not self.drained:
                self._take(CellFailed(cell.key, why))

    def _take_all(self, coordinator: LocalCoordinator) -> None:
        for event in coordinator.events():
            self._take(event)

    def _take(self, event: TrialEvent) -> None:
        match event:
            case CellsRunning():
                self.running[event.holder] = set(event.cells)
            case TaskDone():
                self._changed(event.cell)
            case CellDone():
                self._changed(event.cell)
                self._over(event.cell)
            case CellFailed():
                self.failures[event.cell] = event
                self._over(event.cell)
            case ExpertTrained() | ModelEvaluated() | Note():
                pass
            case _:
                assert_never(event)
        self.watch(event)

    def _changed(self, cell: str) -> None:
        if self.mlflow is not None:
            self.mlflow.changed(self.cells[cell])

    def _over(self, cell: str) -> None:
        self.running = {holder: cells - {cell} for holder, cells in self.running.items()}

    def _status(self, text: str) -> None:
        self.watch(Status(text))


def _joined(errors: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(errors)) or "no reason given"


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """The same number of threads as a worker has: it can show in the last bits of a result."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
