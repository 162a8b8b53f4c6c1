"""Searches on real, tiny sweeps: in this process and on Ray Tune the same decisions, told in MLflow and the report."""

import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from time_ray import api
from time_ray.analysis.searching import Searched, searched
from time_ray.events import Event, ExpertTrained, Planned
from time_ray.tracking.verdict import REMOVED_TAG

Make = Callable[..., Path]
Command = Callable[..., Any]
SMALL: dict[str, Any] = {
    "init": ["zs", "ft"],
    "deploy": ["ft", "ema"],
    "technique": ["average"],
    "stream": {"tasks": 2},
    "seed": [0, 1, 2],
    "evaluation": {"lengths": [0.5]},
    "search": {"epsilon": 8.0, "delta": 0.5},
}


def searching(opened: api.Opened) -> Searched:
    found = searched(opened.study, opened.store)
    assert found is not None
    return found


class Raced:
    """A finished search, and what was told on the way."""

    def __init__(self, path: Path, overrides: tuple[str, ...] = ()) -> None:
        self.events: list[Event] = []
        self.opened = api.open_experiment(path, overrides)
        self.outcome = api.sweep(self.opened, self.events.append)
        self.found = searching(self.opened)

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@pytest.fixture(scope="module")
def new_search(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Make:
    """An experiment with all test images, drawn once: judged by few, cells leave too late to spare a training."""
    drawn = tmp_path_factory.mktemp("all_images")

    def make(folder: Path, **changes: Any) -> Path:
        path = new_experiment(folder, **changes)
        (folder / "runs" / "data").unlink()
        (folder / "runs" / "data").symlink_to(drawn)
        return path

    return make


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory, new_search: Make) -> Raced:
    return Raced(new_search(tmp_path_factory.mktemp("raced"), **SMALL))


def test_what_left_is_trained_no_more(raced: Raced) -> None:
    assert (raced.outcome.exit_code, raced.outcome.tracking_error, raced.outcome.failures) == (0, None, {})
    assert raced.found.selection.over
    assert raced.found.selection.removed
    whole = api.plan(api.open_experiment(raced.opened.path, ["search=null"]))
    assert raced.count(ExpertTrained) == whole.trainings.distinct - whole.trainings.to_do
    assert whole.trainings.to_do > 0
    planned = [event for event in raced.events if isinstance(event, Planned)]
    assert planned[-1].trainings == raced.count(ExpertTrained)
    lengths = {bool(one.removed): set(one.at_lengths) for one in raced.outcome.results if one.scored}
    assert lengths == {True: set(), False: {0.5}}


def test_a_search_that_is_over_does_nothing_again(raced: Raced, time_ray: Command) -> None:
    again = time_ray("sweep", raced.opened.path)
    assert again.status == 0
    assert "removed after" in again.err
    assert "with a probability of 50 %, a survivor is within 8 GM of the best" in again.err
    assert "trainings" in again.err
    assert time_ray("status", raced.opened.path).status == 0


def test_mlflow_says_which_left_and_why(raced: Raced) -> None:
    client = MlflowClient(f"sqlite:///{raced.opened.files.path('mlflow.db')}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    tags = {run.data.tags[REMOVED_TAG] for run in runs if REMOVED_TAG in run.data.tags}
    assert tags == {why.text for why in raced.found.removed.values()}
    notes = [run.data.tags.get("mlflow.note.content", "") for run in runs]
    (note,) = (note for note in notes if "The search removed" in note)
    assert "with a probability of 50 %" in note


def test_the_report_has_a_row_for_what_left(raced: Raced, tmp_path: Path) -> None:
    page = api.report(raced.opened, tmp_path / "report.html").read_text(encoding="utf-8")
    why = next(iter(raced.found.removed.values()))
    assert why.text in page
    assert "within 8 GM of the best" in page


def test_an_interrupted_search_goes_on_to_the_same_decisions(raced: Raced, new_search: Make, tmp_path: Path) -> None:
    opened = api.open_experiment(new_search(tmp_path, **SMALL))
    stops, trained = 0, count(1)

    def stop(event: Event) -> None:
        if isinstance(event, ExpertTrained) and next(trained) % 2 == 0:
            signal.raise_signal(signal.SIGINT)

    while api.sweep(opened, stop).interrupted:
        stops += 1
    assert stops > 1
    assert searching(opened).selection == raced.found.selection


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_on_ray_tune_the_same_cells_leave(raced: Raced, new_search: Make, tmp_path: Path) -> None:
    found = Raced(new_search(tmp_path, **{**SMALL, "run": {"workers": 1, "trials": 2}}))
    assert found.outcome.exit_code == 0
    assert found.found.selection == raced.found.selection
    assert found.count(ExpertTrained) == raced.count(ExpertTrained)
    lengths = {bool(one.removed): set(one.at_lengths) for one in found.outcome.results if one.scored}
    assert lengths == {True: set(), False: {0.5}}
