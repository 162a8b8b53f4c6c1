"""The driver: plan, run what is missing on Ray Tune, feed the display and MLflow, read the results back."""

import os
import pickle
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import assert_never

from time_ray.analysis.searching import results_of, searched
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.doctor import brief
from time_ray.cluster.given_experts import copy_experts, missing_experts
from time_ray.cluster.messages import Ready, RunTrials, Trials
from time_ray.cluster.plan_stages import PlanStages
from time_ray.cluster.ray_cluster import check_address
from time_ray.cluster.ray_process import RayLostError, RayProcess, folder_root, ray_process
from time_ray.cluster.room import Request, at_once, requested, trained_on
from time_ray.cluster.shipped import storage_everywhere
from time_ray.cluster.trial import Job, Scratch
from time_ray.cluster.tuning import check_optuna, note_found, run_tuning, tune_here
from time_ray.core.errors import StoreError, UserError
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Cell
from time_ray.core.plan import plan
from time_ray.core.ray_job import ray_job
from time_ray.core.secrets import hidden
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
from time_ray.model_needs import Needs, needs_by_model, settled
from time_ray.plugins import installed_in, loaded
from time_ray.private_files import current_umask
from time_ray.rates import read_rates, trial_costs, write_rates, write_start_up
from time_ray.results import Outcome, read_results, stored, unfinished
from time_ray.search_prior import remember
from time_ray.store.files import Files
from time_ray.store.lease import lease
from time_ray.store.signing import start_signing
from time_ray.store.stop_request import How, stop_requests
from time_ray.store.store import Store
from time_ray.study import Study, check_weights
from time_ray.tracking.client import tracking_uri
from time_ray.tracking.history import owners
from time_ray.tracking.host import Host
from time_ray.tracking.mlflow_sync import MlflowSync
from time_ray.tracking.tracked import is_tracked, note_tracked
from time_ray.tracking.tracker import Ended
from time_ray.trials import trials

ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # a scheduler's, and that of a terminal that is closed
MAX_ROUNDS = 3  # of the same cells: another round is needed only where a whole trial was lost, for its other cells

Watch = Callable[[Event], None]
Handler = Callable[[int, FrameType | None], None]


def sweep(study: Study, files: Files, watch: Watch, *, profile: bool = False) -> Outcome:
    """Run every cell that is not done yet. The same call again resumes, and does nothing once all is done.

    Args:
        study: What to run.
        files: The storage.
        watch: Called with every event (see time_ray.events): what is to do, what trials tell, what the sweep is at.
        profile: Whether each trial leaves traces of its first training and evaluation.

    Returns:
        How it ended. Cells that failed and an MLflow that did not answer are in it, and raise nothing.

    Raises:
        UserError: It cannot start: the storage cannot be written or is in use by another sweep of this name, weights
            are not there, or Ray cannot be used as it was asked for.
        StoreError: The storage went away meanwhile.

    """
    started = time.monotonic()
    check_optuna(study)
    tracking_uri(files)  # a storage that cannot be tracked is refused before anything runs
    if study.experiment.run.on_ray:
        check_address()
        folder_root()
    if ray_job(os.environ):
        storage_everywhere(study.experiment)
    try:
        files.check_writable()
    except UserError as error:
        return _finished_before(study, files, error)
    start_signing(files)
    profiles = f"profiles/{study.experiment.name}/{time.strftime('%Y%m%d-%H%M%S')}" if profile else None
    stages = PlanStages(watch)
    running = _Sweep(study, files, stages, profiles)

    def lose(why: str) -> None:
        running.lose(why)

    with lease(files, study.experiment.name, lose) as held:
        outcome = running.run(held)
        if study.untuned and outcome.exit_code == 0:
            stages.next()
            failures = running.tune()
            if running.drained:
                outcome.interrupted = True
            else:
                stages.next()
                running = _Sweep(study, files, stages, profiles)
                outcome = running.run(held)
                outcome.untuned = failures
    outcome.seconds = time.monotonic() - started
    if profiles is not None:
        outcome.traces = tuple(f"{profiles}/{file.base_name}" for file in files.list(profiles))
    return outcome


def _finished_before(study: Study, files: Files, unwritable: UserError) -> Outcome:
    """The outcome of a sweep on a storage that takes nothing any more. Raises the error if there is anything to do."""
    store = Store(files)
    try:
        search = searched(study, store)
        left = unfinished(study.everything if search is None else search.wanted, store)
    except StoreError:
        raise unwritable from None  # it cannot be read either
    if left or study.untuned:
        raise unwritable
    lag = None if is_tracked(study, files) else "; ".join(unwritable.faults)
    return Outcome(results_of(study, store), tracking_error=lag)


class _Sweep:
    """One sweep while it runs."""

    def __init__(self, study: Study, files: Files, watch: PlanStages, profiles: str | None) -> None:
        self.study = study
        self.profiles = profiles  # where traces go
        self.held = ""  # our lease
        self.lost: str | None = None  # why it is ours no more
        self.files = files
        self.store = Store(files)
        self.watch = watch
        self.cells = {cell.key: cell for cell in study.everything}
        self.failures: dict[str, CellFailed] = {}
        self.running: dict[str, set[str]] = {}  # by trial, the cells it is at
        self._holders: dict[str, str] = {}  # by cell, the last trial that was at it
        self._said_where = False
        self._said: set[str] = set()  # lines about devices
        self.drained = False
        self._breaking_off = False
        self._drain: Callable[[], None] = lambda: None  # lets trials finish what they are at, and stop
        self.mlflow: MlflowSync | None = None

    def run(self, held: str) -> Outcome:
        """See sweep; the lease of this name is held."""
        self.held = held
        remember(self.study, self.files)
        todo = self._todo()
        self._say_planned(todo)
        if not todo and is_tracked(self.study, self.files):
            return Outcome(results_of(self.study, self.store))
        if todo:
            check_weights(self.study, stored(self.store).weights)
            brief(self.study, self.files, self.watch)
        owners(self.study, self.store)  # noted now, so that MLflow can be told later
        self.mlflow = MlflowSync(self.study, self.files, host=Host() if todo else None)
        stopped_at_once = bool(todo) and self._interruptible(partial(self._run_missing, todo))
        self._check_held()
        results = results_of(self.study, self.store, self.failures)
        done = not any(result.due for result in results)
        failed = {key: event.error for key, event in self.failures.items()}
        ended = Ended(failed, interrupted=stopped_at_once or (self.drained and not done))
        if stopped_at_once:
            self.mlflow.break_off(ended)
        else:
            self._status("writing MLflow")
            self.mlflow.finish(ended)
            self._check_held()
            write_rates(self.store, results)
        if done and self.mlflow.lag is None:
            note_tracked(self.study, self.files)
        return Outcome(results, self.failures, ended.interrupted, self.mlflow.lag)

    def _check_held(self) -> None:
        """StoreError if the lease was lost: what is left to do is for whoever holds it now."""
        if self.lost is not None:
            raise StoreError(self.lost)

    def tune(self) -> dict[str, str]:
        """The study and the store know the parameters that are searched, unless the sweep is to stop.

        Returns:
            Why searches failed, by their names.

        """
        failures: dict[str, str] = {}
        self._interruptible(partial(self._tune, failures))
        self._check_held()
        return failures

    def _tune(self, failures: dict[str, str]) -> None:
        count = sum(one.settings.candidates * len(one.cells) for one in self.study.untuned)
        self.watch(Planned(0, count, 0))
        if not self.study.experiment.run.on_ray:
            coordinator = LocalCoordinator()
            self._drain = coordinator.drain
            tune_here(self.study, self.store, coordinator, self._take, self._status, failures)
            return
        lost, most = 0, self.study.experiment.run.max_failures
        while lost <= most:
            try:
                self._tune_on_ray(failures)
            except RayLostError as error:
                lost, why = lost + 1, str(error)
                self._status(f"{error}{'; starting it again' if lost <= most else ''}")
            else:
                return
        failures.update((tuning.name, why) for tuning in self.study.untuned)

    def _tune_on_ray(self, failures: dict[str, str]) -> None:
        needs = needs_by_model(self._settled)
        with ray_process(needs.values()) as (ray, folder):
            self._drain = ray.drain
            ready = ray.ready()
            by_model = requested(needs, ready.nodes, can_grow=ready.can_grow)
            for tuning in self.study.untuned if not self.drained else ():
                self._status(f"searching {tuning.name}: {tuning.settings.candidates} candidates")
                coordinator_name, request = _coordinator_name(), by_model[tuning.cells[0].setting.model.label]
                with self._scratch(folder) as scratch:
                    asked = run_tuning(tuning, request, self._job(coordinator_name), coordinator_name, scratch)
                    candidates = ray.run_tuning(asked, self._take)
                if not self.drained:
                    note_found(self.study, self.store, tuning, candidates, failures)

    def _interruptible(self, run: Callable[[], None]) -> bool:
        """Run what is to be run. Ctrl-C once finishes what is running; twice stops at once, and then this is True.

        A stop request on the storage does the same; SIGTERM and SIGHUP are as Ctrl-C twice.
        """
        endings = [number for number in ENDINGS if not _is_ignored(number)]
        handlers: dict[int, Handler] = {signal.SIGINT: self._interrupted, **dict.fromkeys(endings, self._terminated)}
        taken = handlers.items() if _in_main_thread() else ()
        before = {number: signal.signal(number, handler) for number, handler in taken}
        try:
            with stop_requests(self.files, self.study.experiment.name, self.held, self._asked_to_stop):
                run()
        except KeyboardInterrupt:
            return True
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return False

    def _interrupted(self, *_: object) -> None:
        if self.drained:
            raise KeyboardInterrupt
        self._finish("finishing what is running; Ctrl-C again stops at once")

    def _terminated(self, number: int, _: object) -> None:
        self.drained = True
        if not self._breaking_off:
            self._status(f"ended by {signal.Signals(number).name}; the same command resumes")
        raise KeyboardInterrupt

    def lose(self, why: str) -> None:
        """The lease is lost: nothing more may be done in its name."""
        self.lost = why
        self._break_off(why)
        if self.mlflow is not None:
            self.mlflow.give_up()

    def _asked_to_stop(self, how: How) -> None:
        if how == "now":
            self._break_off("asked to stop")
        elif not self.drained:
            self._finish("asked to stop; finishing what is running")

    def _break_off(self, why: str) -> None:
        """Outside of the main thread nothing can be broken off: what is running is finished there."""
        if signal.getsignal(signal.SIGTERM) == self._terminated:
            self._breaking_off = True
            main = threading.main_thread().ident
            assert main is not None  # noqa: S101 it runs
            signal.pthread_kill(main, signal.SIGTERM)  # it may be waiting for Ray just now
        elif not self.drained:
            self._finish(f"{why}; finishing what is running")

    def _finish(self, status: str) -> None:
        self.drained = True
        threading.Thread(target=self._drain, name="drain").start()  # this one may be writing to Ray just now
        self._status(status)

    def _run_missing(self, todo: Sequence[Cell]) -> None:
        settings = self.study.experiment.run
        if not settings.on_ray:
            from time_ray.cluster.in_process import run_here  # imports torch, which trials on Ray import themselves

            self._draw()
            self.watch(Note(f"{', '.join(spec.label for spec in self.study.experiment.model)}: trained on the CPU"))
            coordinator = LocalCoordinator()
            self._drain = coordinator.drain
            if self.drained:  # meanwhile
                coordinator.drain()
            while todo:
                run_here(self.study, self.store, todo, coordinator, self._take, self.profiles)
                todo = self._next(todo)
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

    @cached_property
    def _settled(self) -> Experiment:
        """The experiment with what its trials need: found once, here, so that all workers go by the same."""
        return settled(self.study.experiment)

    def _todo(self) -> list[Cell]:
        """Cells to be run, unless we are stopping."""
        if self.drained:
            return []
        search = searched(self.study, self.store, self.failures)
        cells = self.study.everything if search is None else search.wanted
        return unfinished([cell for cell in cells if cell.key not in self.failures], self.store)

    def _next(self, before: Sequence[Cell]) -> list[Cell]:
        """What a search runs next, once these cells were run as far as they can be; nothing if no one can run them."""
        if self.study.experiment.search is None:
            return []
        todo = self._todo()
        if _keys(todo) <= _keys(before) and _same_lengths(todo, before):
            return []
        self.watch.next()
        self._say_planned(todo)
        return todo

    def _say_planned(self, todo: Sequence[Cell]) -> None:
        """People know how much is to be made in all, as far as is decided."""
        counts = plan(todo, stored(self.store))
        self.watch(Planned(counts.trainings_to_do, counts.evaluations_to_do, counts.cells_to_do))

    def _draw(self) -> None:
        """Datasets that are made here lie on the disk."""
        prepare(self.study.datasets.all, self._status)

    def _copy_experts(self) -> None:
        """Given experts are in the store: nodes need not see the folder that they lie in."""
        if self.study.datasets.experts is None:
            return
        if experts := missing_experts(self._todo(), self.store):
            self._status(f"copying {len(experts)} experts into the store")
            copy_experts(experts, self.study, self.store, self._take, lambda: self.drained)

    def _on_ray(self) -> list[str]:
        """Trials ran every cell that they could; why the last of them ended early, if they did."""
        self._status("starting Ray")
        errors: list[str] = []
        with ray_process(needs_by_model(self._settled).values()) as (ray, folder):
            self._drain = ray.drain
            self._draw()  # while Ray starts
            self._copy_experts()
            before, rounds = set[str](), 0
            while True:
                ready = ray.ready()
                todo = self._todo()
                rounds = rounds + 1 if _keys(todo) == before else 1
                if not todo or rounds > MAX_ROUNDS:
                    break
                before = _keys(todo)
                self._say_where(ready)
                errors = self._round(ray, ready, todo, folder)
        return errors

    def _say_where(self, ready: Ready) -> None:
        """People know where they can watch a cluster that is not ours alone."""
        if "RAY_ADDRESS" in os.environ and not self._said_where:
            self._said_where = True
            self.watch(Note(f"Ray: {ready.dashboard or 'no dashboard'}"))
            self.watch(Note(f"MLflow: {hidden(tracking_uri(self.files))}"))

    def _say_device(self, needs: Mapping[str, Needs], requests: Mapping[str, Request], *, can_grow: bool) -> None:
        """People know on what models train before any of them does."""
        for line in trained_on(needs, requests, can_grow=can_grow):
            if line not in self._said:
                self._said.add(line)
                self.watch(Note(line))

    def _round(self, ray: RayProcess, ready: Ready, todo: Sequence[Cell], folder: Path) -> list[str]:
        """Every cell was given to a trial, and all trials ended; why some of them did so early."""
        experiment = self._settled
        needs = needs_by_model(experiment)
        by_model = requested(needs, ready.nodes, can_grow=ready.can_grow)
        self._say_device(needs, by_model, can_grow=ready.can_grow)
        first = self._packed(todo, ready, by_model)
        coordinator = _coordinator_name()
        with self._scratch(folder) as scratch:
            asked = RunTrials(
                first=first,
                more=experiment.search is not None,
                limit=experiment.run.trials,
                max_failures=experiment.run.max_failures,
                job=self._job(coordinator),
                coordinator=coordinator,
                scratch=scratch,
            )
            before = todo

            def more() -> Trials:
                nonlocal before
                self._fail_lost("")
                before = self._next(before)
                return self._packed(before, ready, by_model)

            errors = ray.run_round(asked, self._take, more)
        write_start_up(self.store, ray.start_ups.first, ray.start_ups.later)
        self._fail_lost(_joined(errors))
        return errors

    def _packed(self, todo: Sequence[Cell], ready: Ready, by_model: Mapping[str, Request]) -> Trials:
        """The cells as trials, the longest first."""
        experiment = self._settled
        costs = trial_costs(todo, read_rates(self.store, todo), experiment.training.batch_size)
        packed = trials(todo, costs, stored(self.store), one_each=experiment.run.pack == "cell")
        requests = tuple(by_model[trial.model] for trial in packed)
        if packed:
            capacity = min(len(packed), experiment.run.trials or max(1, at_once(ready.nodes, Counter(requests))))
            self._status(f"starting {len(packed)} trial{'s' * (len(packed) > 1)}, {capacity} at once")
        lengths = any(cell.setting.scoring.lengths for cell in todo)
        return Trials(tuple(packed), requests, lengths)

    def _fail_lost(self, why: str) -> None:
        """A trial that was lost with cells in hand has failed those cells, and only those."""
        lost = read_results([self.cells[key] for key in set().union(*self.running.values())], self.store)
        self.running.clear()
        reason = why or "no reason given"
        self._fail([result.cell for result in lost if not result.done], f"its trial was lost ({reason})")

    def _job(self, coordinator: str) -> bytes:
        """What workers are told, pickled."""
        experiment = self._settled
        job = Job(
            plugins=loaded(experiment.plugins),
            installed=installed_in(experiment),
            study=pickle.dumps((experiment, self.study.datasets, dict(self.study.found))),
            storage=self.files.uri,
            mark=self.store.mark,
            coordinator=coordinator,
            umask=current_umask(),
            profiles=self.profiles,
        )
        return pickle.dumps(job)

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
            if self.lost is None:
                self.files.delete_folder("ray", name)  # also what a killed sweep left there: we hold the lease

    def _fail(self, cells: Sequence[Cell], why: str) -> None:
        """The cells have failed for this reason, unless they failed for another before, or we are stopping."""
        for cell in cells:
            if cell.key not in self.failures and not self.drained:
                self._take(CellFailed(cell.key, why))

    def _take(self, event: TrialEvent) -> None:
        match event:
            case CellsRunning():
                self.running[event.holder] = set(event.cells)
                self._holders.update(dict.fromkeys(event.cells, event.holder))
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
        if (holder := self._holders.pop(cell, None)) is not None:
            self.running[holder].discard(cell)

    def _status(self, text: str) -> None:
        self.watch(Status(text))


def _coordinator_name() -> str:
    return f"time-ray-coordinator-{uuid.uuid4().hex}"


def _keys(cells: Sequence[Cell]) -> set[str]:
    return {cell.key for cell in cells}


def _same_lengths(one: Sequence[Cell], other: Sequence[Cell]) -> bool:
    """Whether both are to be scored at as many lengths."""
    return len({cell.setting.scoring.lengths for cell in (*one, *other)}) <= 1


def _joined(errors: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(errors)) or "no reason given"


def _is_ignored(number: int) -> bool:
    """Whether whoever started us wants us to go on, as nohup does."""
    return signal.getsignal(number) == signal.SIG_IGN


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
