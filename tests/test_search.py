"""Searches on real, tiny sweeps: in this process and on Ray Tune the same decisions, told in MLflow and the report."""

import base64
import signal
import zlib
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from time_ray import api, plugins
from time_ray.analysis.searching import Searched, searched
from time_ray.events import Event, ExpertTrained, Planned
from time_ray.results import spared_text
from time_ray.tracking.runs import KIND_TAG as KIND
from time_ray.tracking.verdict import REMOVED_TAG
from time_ray.tracking.views import CELLS, VIEW_TAGS

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


def shown(view: str) -> str:
    """A view, unpacked."""
    return zlib.decompress(base64.b64decode(view.partition(";")[2])).decode()


class Raced:
    """A finished search, and what was told on the way."""

    def __init__(self, path: Path, overrides: tuple[str, ...] = ()) -> None:
        self.events: list[Event] = []
        self.opened = api.open_experiment(path, overrides)
        self.outcome = api.sweep(self.opened, self.take)
        self.found = searching(self.opened)

    def take(self, event: Event) -> None:
        self.events.append(event)

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
    assert " left out by the search; everything lies in " in again.err
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
    removed = api.best(raced.opened).removed
    assert f"The search removed {len(removed)} cells:" in note
    assert f" cells are done{spared_text(raced.outcome.results)}." in note
    names = {run.info.run_name: run.data.tags.get(REMOVED_TAG) for run in runs if run.data.tags[KIND] == "summary"}
    assert {name for name, why in names.items() if why} == {name for name in names if ", removed after " in name}
    assert "tags.`removed`" in shown(experiment.tags[VIEW_TAGS[CELLS]])


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


BROKEN = """
from time_ray.merging import technique

@technique
def broken(base, experts):
    raise ValueError("no such luck")
"""


@pytest.mark.nightly
def test_a_cell_that_fails_leaves_and_others_go_on(new_experiment: Make, tmp_path: Path) -> None:
    """The sweep ends with 1, and so it does again, at no cost but that of what failed."""
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    changes = {"init": "zs", "deploy": ["ft", "all"], "technique": ["average", "broken"], "plugins": "broken.py"}
    path = new_experiment(tmp_path, **{**SMALL, **changes, "seed": [0, 1], "evaluation": {}})
    first, again = Raced(path), Raced(path)
    plugins.forget(str(tmp_path / "broken.py"))
    for raced in (first, again):
        assert raced.outcome.exit_code == 1
        (failure,) = raced.outcome.failures.values()
        assert "ValueError: no such luck" in failure.error
        (why,) = {one.removed.text for one in raced.outcome.results if one.removed and one.removed.failed}
        assert why == "removed after 1 seed: it failed"
        assert sum(one.due for one in raced.outcome.results) == 1
        assert raced.outcome.tracking_error is None
    assert (first.count(ExpertTrained), again.count(ExpertTrained)) == (4, 0)
    client = MlflowClient(f"sqlite:///{first.opened.files.path('mlflow.db')}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    status = {run.data.tags["mlflow.runName"]: run.info.status for run in runs}
    assert [name for name, ended in status.items() if ended == "FAILED"]
    (sweep,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert sweep.info.status == "FAILED"


def test_a_plan_counts_what_is_trained_on_all_tasks_at_once(raced: Raced) -> None:
    without, with_bounds = (
        api.plan(api.open_experiment(raced.opened.path, [f"multitask={flag}"])).search for flag in ("false", "true")
    )
    assert without is not None
    assert with_bounds is not None
    assert with_bounds.worst == without.worst + 3
    assert without.expected < with_bounds.expected <= without.expected + 3


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_on_ray_tune_the_same_cells_leave(raced: Raced, new_search: Make, tmp_path: Path) -> None:
    found = Raced(new_search(tmp_path, **{**SMALL, "run": {"workers": 1, "trials": 2}}))
    assert found.outcome.exit_code == 0
    assert found.found.selection == raced.found.selection
    assert found.count(ExpertTrained) == raced.count(ExpertTrained)
    lengths = {bool(one.removed): set(one.at_lengths) for one in found.outcome.results if one.scored}
    assert lengths == {True: set(), False: {0.5}}


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_process_that_is_lost_between_seeds_changes_nothing(
    raced: Raced, new_experiment: Make, tmp_path: Path
) -> None:
    """It is to be used again just then, for a trial of the next seed."""
    killed = list[int]()

    class Killing(Raced):
        def take(self, event: Event) -> None:
            super().take(event)
            if isinstance(event, Planned) and self.count(Planned) in (2, 3):
                every = psutil.Process().children(recursive=True)
                (process, *_) = (one for one in every if "ray::ImplicitFunc" in " ".join(one.cmdline()))
                process.kill()
                killed.append(process.pid)

    found = Killing(new_experiment(tmp_path, **{**SMALL, "run": {"workers": 1, "trials": 2}}))
    assert len(killed) == 2
    assert (found.outcome.exit_code, found.outcome.failures) == (0, {})
    assert found.found.selection == raced.found.selection
    assert found.count(ExpertTrained) == raced.count(ExpertTrained)
