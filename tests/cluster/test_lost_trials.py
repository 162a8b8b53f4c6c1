"""What a sweep does about trials that end without their cells, and about a Ray that is lost."""

import pickle
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.cluster import sweep
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.messages import Ready, RunTrials, StartUps
from time_ray.cluster.ray_process import RayLostError
from time_ray.cluster.trial import Job
from time_ray.cluster.work import work
from time_ray.core.grid import Cell
from time_ray.events import CellsRunning, Status
from time_ray.model_needs import Needs
from time_ray.store.files import Files
from time_ray.store.store import Store


class ToyRay:
    """A Ray that runs one trial at once and whose rounds are what a test wants them to be."""

    def __init__(self, rounds: Callable[..., list[str]]) -> None:
        self.run_round = rounds
        self.start_ups = StartUps(None, None)

    def ready(self) -> Ready:
        return Ready(({"CPU": 1.0},), can_grow=False)

    def drain(self) -> None:
        pass


@pytest.fixture
def on_ray(new_experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A sweep of three cells whose Ray is a toy."""

    def run(rounds: Callable[..., list[str]], *overrides: str) -> tuple[Any, list[str], list[Cell]]:
        @contextmanager
        def toy(_: Collection[Needs]) -> Iterator[tuple[ToyRay, Path]]:
            yield ToyRay(rounds), tmp_path

        monkeypatch.setattr(sweep, "ray_process", toy)
        opened = api.open_experiment(
            new_experiment(tmp_path), ["run.workers=1", "init=ft", "technique=average", *overrides]
        )
        said: list[str] = []
        outcome = api.sweep(opened, lambda event: said.append(event.text) if isinstance(event, Status) else None)
        return outcome, said, list(opened.study.cells)

    return run


def test_cells_that_no_trial_could_run_fail_with_the_reason(on_ray: Callable[..., Any]) -> None:
    rounds: list[int] = []

    def no_worker_starts(asked: RunTrials, *_: object) -> list[str]:
        rounds.append(sum(len(trial.cells) for trial in asked.first.trials))
        return ["no worker started", "no worker started"]

    outcome, _, cells = on_ray(no_worker_starts)
    assert outcome.exit_code == 1
    assert rounds == [3] * sweep.MAX_ROUNDS
    assert {failure.error for failure in outcome.failures.values()} == {"no trial could run it (no worker started)"}
    assert outcome.failures.keys() == {cell.key for cell in cells}


def test_rounds_that_get_somewhere_are_no_reason_to_give_up(on_ray: Callable[..., Any]) -> None:
    """As in a long sweep or search of which a trial is lost now and then."""
    rounds: list[int] = []

    def one_cell_more(told: RunTrials, *_: object) -> list[str]:
        rounds.append(sum(len(trial.cells) for trial in told.first.trials))
        if rounds != [3]:
            job: Job = pickle.loads(told.job)  # noqa: S301 the sweep pickled it
            study, coordinator = job.open_study(), LocalCoordinator()
            work(study.cells[: len(rounds) - 1], SweepBackend(study, Store(Files(job.storage)), coordinator))
        return ["its process was lost"]

    outcome, _, _ = on_ray(one_cell_more)
    assert rounds == [3, 3, 2, 1]
    assert len(rounds) > sweep.MAX_ROUNDS
    assert outcome.exit_code == 0


def test_a_ray_that_is_lost_is_started_again_until_it_was_too_often(on_ray: Callable[..., Any]) -> None:
    def lost(*_: object) -> list[str]:
        raise RayLostError("Ray's raylet ended")

    outcome, said, cells = on_ray(lost, "run.max_failures=2")
    assert outcome.exit_code == 1
    assert said.count("starting Ray") == 3
    assert said.count("Ray's raylet ended; starting it again") == 2
    assert {failure.error for failure in outcome.failures.values()} == {"no trial could run it (Ray's raylet ended)"}
    assert outcome.failures.keys() == {cell.key for cell in cells}


def test_what_a_lost_ray_had_in_hand_is_run_again(on_ray: Callable[..., Any]) -> None:
    asked: list[int] = []

    def lost_once(told: RunTrials, take: Callable[..., None], _: object) -> list[str]:
        asked.append(sum(len(trial.cells) for trial in told.first.trials))
        if len(asked) == 1:
            take(CellsRunning(told.first.trials[0].cells, "a trial"))
            raise RayLostError("Ray's gcs_server ended")
        job: Job = pickle.loads(told.job)  # noqa: S301 the sweep pickled it
        study, coordinator = job.open_study(), LocalCoordinator()
        work(study.cells, SweepBackend(study, Store(Files(job.storage)), coordinator))
        return []

    outcome, _, cells = on_ray(lost_once)
    assert asked == [len(cells)] * 2
    assert outcome.exit_code == 0
    assert not outcome.failures
