"""Parameters of techniques are searched on stored experts: the same candidates however it runs and is broken off."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from scored_store import experiment

from time_ray import api
from time_ray.analysis.tuning_gain import gains
from time_ray.analysis.tuning_verdict import gain_text, tuning_lines
from time_ray.cluster import candidates, tuning
from time_ray.core.errors import CellError, StoreError, UserError
from time_ray.core.grid import last
from time_ray.core.parameter_range import Range
from time_ray.core.plan import needs
from time_ray.core.tuning import Candidate, Tuning, best_of
from time_ray.events import Event, ExpertTrained, ModelEvaluated, Planned
from time_ray.found_params import read_candidates
from time_ray.report.best import GAIN
from time_ray.report.summary import status_lines
from time_ray.study import candidate

Make = Callable[..., Path]
TIES = {"name": "ties", "keep": {"from": 0.05, "to": 0.9}, "scaling": {"from": 0.2, "to": 2}}
SMALL: dict[str, Any] = {
    "init": ["zs", "ft"],
    "deploy": "all",
    "technique": [TIES],
    "stream": {"tasks": 2},
    "seed": [0, 1],
    "exclude": {"init": "ft", "seed": 1},
    "tuning": {"candidates": 5, "at_once": 2},
}


def tried(opened: api.Opened) -> dict[str, list[Candidate]]:
    return {one.name: read_candidates(opened.store, one) for one in opened.study.tunings}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> tuple[api.Opened, list[Event]]:
    opened, events = api.open_experiment(new_experiment(tmp_path_factory.mktemp("tuned"), **SMALL)), list[Event]()
    (before, _), plan = opened.study.tunings, api.plan(opened)
    assert [(one.candidates, one.evaluations, one.found) for one in plan.tunings] == [(5, 10, None), (5, 5, None)]
    assert before.start == {"keep": 0.2, "scaling": 1.0}
    assert status_lines(opened, api.status(opened))[-1].startswith("2 searches for parameters to do, once the grid is")
    assert api.sweep(opened, events.append).exit_code == 0
    return opened, events


def test_the_best_candidate_is_a_cell_as_if_written_by_hand(swept: tuple[api.Opened, list[Event]]) -> None:
    opened, _ = swept
    for one in opened.study.tunings:
        found = read_candidates(opened.store, one)
        best = best_of(found)
        assert best is not None
        assert len(found) == 5
        assert found[0].params == one.start
        assert all(0.05 <= each.params["keep"] <= 0.9 for each in found)
        assert best.value == max(each.value or 0 for each in found)
        assert opened.study.found[one.key] == best.params
    best_params = {json.dumps({"name": "ties", **opened.study.found[one.key]}) for one in opened.study.tunings}
    by_hand = [json.loads(text) for text in best_params if text != '{"name": "ties", "keep": 0.2, "scaling": 1.0}']
    written = api.open_experiment(opened.path, [f"technique={json.dumps(['ties', *by_hand])}"])
    assert {cell.key for cell in opened.study.everything} <= {cell.key for cell in written.study.cells}
    assert all(result.done for result in api.status(opened))


def test_nothing_is_trained_or_scored_for_it_again(swept: tuple[api.Opened, list[Event]]) -> None:
    opened, events = swept
    assert len([event for event in events if isinstance(event, ExpertTrained)]) == 5  # of zs and ft, shared at first
    plans = [event for event in events if isinstance(event, Planned)]
    assert [event.trainings for event in plans] == [5, 5, 5]
    again = list[Event]()
    assert api.sweep(api.open_experiment(opened.path), again.append).exit_code == 0
    assert [event for event in again if isinstance(event, ModelEvaluated)] == []
    (of_zs, of_ft) = api.plan(opened).tunings
    assert (of_zs.found, of_ft.found) == tuple(opened.study.found[one.key] for one in opened.study.tunings)


def test_the_gain_is_reported_on_the_other_half(swept: tuple[api.Opened, list[Event]]) -> None:
    opened, _ = swept
    assert api.tuned(opened) == gains(opened.study, opened.store)
    for gain in api.tuned(opened):
        assert gain.halves
        assert gain.candidates == 5
        assert gain.low <= gain.mean <= gain.high
    lines = list(tuning_lines(gains(opened.study, opened.store)))
    assert lines[0].startswith("ties for zs/all · mini-tiny 2 steps: keep ")
    assert "the best of 5 candidates: GM " in lines[0]
    assert "over the defaults, on the half of the test images that did not choose" in lines[0]


def test_best_has_the_gain_in_the_row_of_what_was_found(
    swept: tuple[api.Opened, list[Event]], time_ray: Callable[..., Any]
) -> None:
    opened, _ = swept
    said = time_ray("best", opened.path, "-f", "json")
    rows = json.loads(said.out)
    (row,) = (row for row in rows if row["gain"] is not None)  # cells of ft lack a seed that others have
    every = api.tuned(opened)
    of_zs = next(gain for gain in every if gain.axes["init"] == "zs")
    assert [row[name] for name in GAIN] == [of_zs.mean, of_zs.low, of_zs.high, "gm", "ties"]
    assert row["technique"] == of_zs.axes["technique"]
    assert all(gain_text(gain) in said.err for gain in every)


def test_the_report_has_a_row_for_every_search(swept: tuple[api.Opened, list[Event]], tmp_path: Path) -> None:
    opened, _ = swept
    page = api.report(opened, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Gain of the best parameters over the defaults, on the half of the test images that did not choose" in page
    for gain in api.tuned(opened):
        (row,) = (line for line in page.splitlines() if line.startswith(f'<tr><th scope="row">{gain.name}<'))
        for words in ("keep 0.2, scaling 1", f"{gain.params['keep']:g}", f"{gain.mean:+.2f}", f"{gain.low:+.2f} … "):
            assert words in row


def test_mlflow_has_the_gain_on_the_run_of_the_sweep(swept: tuple[api.Opened, list[Event]]) -> None:
    opened, _ = swept
    client = MlflowClient(f"sqlite:///{opened.files.path('mlflow.db')}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (run,) = (run for run in runs if any(name.startswith("tuned/") for name in run.data.metrics))
    for gain in api.tuned(opened):
        place = f"tuned/ties {gain.axes['init']} all mini-tiny 2 steps"
        found = [run.data.metrics[f"{place}/{end}"] for end in ("gain", "gain_low", "gain_high")]
        assert found == pytest.approx([gain.mean, gain.low, gain.high], abs=1e-4)
        assert run.data.tags[place].startswith(f"keep {gain.params['keep']:g}, scaling ")
        assert gain_text(gain).partition(" (")[0] in run.data.tags["mlflow.note.content"]


def test_searches_of_one_technique_are_told_apart(tmp_path: Path) -> None:
    half = {"name": "ties", "keep": {"from": 0.1, "to": 0.9}, "scaling": 0.5}
    opened = experiment(tmp_path, init="zs", deploy="all", technique=[TIES, half])
    names = [one.name.partition(" for ")[0] for one in opened.study.tunings]
    assert names == ["ties(keep=0.05…0.9,scaling=0.2…2)", "ties(keep=0.1…0.9,scaling=0.5)"]


def test_broken_off_and_begun_anew_it_tries_the_same(
    swept: tuple[api.Opened, list[Event]], new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = api.open_experiment(new_experiment(tmp_path, **SMALL))
    score, calls = candidates.scored, list[object]()

    def until_the_fourth(*args: Any) -> Candidate:
        calls.append(args)
        if len(calls) == 4:
            raise StoreError("gone")
        return score(*args)

    monkeypatch.setattr(candidates, "scored", until_the_fourth)
    with pytest.raises(StoreError, match="gone"):
        api.sweep(opened)
    assert opened.study.found == {}
    monkeypatch.setattr(candidates, "scored", score)
    assert api.sweep(api.open_experiment(opened.path)).exit_code == 0
    assert tried(opened) == tried(swept[0])


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_on_ray_it_tries_and_scores_the_same(swept: tuple[api.Opened, list[Event]]) -> None:
    """One search is begun anew where the grid is done: only its candidates run on Ray."""
    opened = api.open_experiment(swept[0].path, ["init=ft"])
    before, served = tried(opened), {needs(cell).scores[-1] for cell in opened.study.everything}
    for one in opened.study.tunings:
        for found in read_candidates(opened.store, one):
            for cell in candidate(one, found.params):
                if (key := cell.setting.scores_key(last(cell))) not in served:
                    shutil.rmtree(opened.files.path("scores", key[:2], key), ignore_errors=True)
    shutil.rmtree(opened.files.path("tunings"))
    again, events = api.open_experiment(opened.path, ["init=ft", "run.workers=1", "run.trials=2"]), list[Event]()
    assert len(again.study.untuned) == 1
    outcome = api.sweep(again, events.append)
    assert (outcome.exit_code, outcome.untuned) == (0, {})
    assert tried(again) == before
    assert [event for event in events if isinstance(event, ModelEvaluated)]
    assert not [event for event in events if isinstance(event, ExpertTrained)]


def test_candidates_that_fail_are_left_out_and_if_all_do_the_sweep_says_so(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise CellError("no such luck")

    monkeypatch.setattr(candidates, "run_to_end", fails)
    opened = api.open_experiment(new_experiment(tmp_path, **{**SMALL, "init": "zs", "seed": 0, "exclude": []}))
    outcome = api.sweep(opened)
    assert outcome.exit_code == 1
    assert outcome.untuned == {"ties for zs/all · mini-tiny 2 steps": "all 5 candidates failed: no such luck"}


def test_a_search_that_lost_candidates_is_not_over(tmp_path: Path) -> None:
    opened, failures = experiment(tmp_path, init="zs", deploy="all", technique=[TIES]), dict[str, str]()
    (one,) = opened.study.tunings
    tuning.note_found(opened.study, opened.store, one, [Candidate({"keep": 0.2, "scaling": 1.0}, 50.0)] * 39, failures)
    assert failures == {one.name: "1 of 40 candidates were lost; the same command goes on"}
    assert opened.study.untuned == (one,)
    assert read_candidates(opened.store, one) == []


RANGES = {"x": Range(low=0, high=1), "n": Range(low=1, high=9, whole=True)}


def score_of(params: dict[str, float]) -> float | None:
    return None if params["x"] > 0.8 else -((params["x"] - 0.3) ** 2) - 0.01 * params["n"]


@pytest.mark.parametrize("seed", [0, 1])
def test_suggestions_do_not_depend_on_which_candidate_ends_first(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from time_ray.cluster.messages import RunTuning
    from time_ray.cluster.ray_tuning import CandidateSearcher
    from time_ray.cluster.room import Request
    from time_ray.cluster.trial import Scratch

    start, order, request = {"x": 0.5, "n": 2}, random.Random(seed), Request.of(workers=1, CPU=1.0)
    asked = RunTuning("key", RANGES, start, 23, 4, 7, request, 0, b"", "coordinator", Scratch(str(tmp_path)))
    searcher, running, found = CandidateSearcher(asked, lambda: False), dict[str, Any](), dict[int, Any]()
    while len(found) < asked.candidates:
        if len(found) + len(running) < asked.candidates and (
            new := searcher.suggest(name := f"trial {order.random()}")
        ):
            running[name] = new
        if running and order.random() < 0.5:
            name = order.choice(sorted(running))
            ended = running.pop(name)
            found[ended["number"]] = ended["suggested"]
            value = score_of(ended["suggested"])
            searcher.on_trial_complete(name, {"value": value})
    monkeypatch.setattr(candidates, "scored", lambda _, params, __: Candidate(params, score_of(params)))
    opened = experiment(tmp_path, init="zs", deploy="all", technique=[TIES], tuning={"candidates": 23, "seed": 7})
    (base,) = opened.study.tunings
    one = Tuning(base.technique, "", {}, RANGES, start, base.settings, base.cells)
    here = candidates.candidates_here(one, None, lambda: False, lambda _: None)  # type: ignore[arg-type]
    assert [found[number] for number in sorted(found)] == [each.params for each in here]


def faults_of(folder: Path, **changes: object) -> list[str]:
    with pytest.raises(UserError) as error:
        experiment(folder, **{"init": "zs", "deploy": "all", **changes})
    return [fault.partition(": ")[2] for fault in error.value.faults]


def ties(**params: object) -> dict[str, object]:
    return {"technique": [{"name": "ties", **params}]}


FAULTS: list[tuple[dict[str, object], str]] = [
    (ties(keep={"from": 0.9, "to": 0.1}), "technique.0: keep: from 0.9 and to 0.1 are the wrong way round"),
    (ties(keep={"from": 0.1, "to": 1.5}), "technique.0: ties: keep is 1.5; give a number from 0 to 1"),
    (ties(kep={"from": 0.1, "to": 0.5}), "technique.0: ties: unknown parameter 'kep'; did you mean 'keep'?"),
    (ties(aggregate={"from": 0.1, "to": 0.5}), "technique.0: ties: aggregate is 0.1; give one of "),
    ({**ties(keep={"from": 0.1, "to": 0.5}), "deploy": "ft"}, "technique.0: there is nothing to search on"),
    (
        {**ties(keep={"from": 0.1, "to": 0.5}), "init": ["zs", "ema", "all"]},
        "technique.0: a range is searched where the technique only deploys, and with init ema, all it trains, too",
    ),
    ({"tuning": {"candidates": 0}}, "tuning.candidates: input should be greater than or equal to 1"),
    ({"tuning": {"by": "acc"}}, "tuning.by: no such value 'acc'; known: gm, ka, zs"),
]


@pytest.mark.parametrize(("changes", "expected"), FAULTS)
def test_ranges_that_cannot_be_searched_are_refused(changes: dict[str, object], expected: str, tmp_path: Path) -> None:
    assert faults_of(tmp_path, **changes)[0].startswith(expected)


def test_all_faults_of_ranges_are_told_at_once(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, **ties(keep={"from": 1}, scaling={"from": 2, "to": 1}))
    assert "keep: a range is" in fault
    assert "; scaling: from 2 and to 1 are the wrong way round" in fault


def test_without_optuna_one_line_says_what_to_install(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "find_spec", lambda _: None)
    opened, events = api.open_experiment(new_experiment(tmp_path, **SMALL)), list[Event]()
    with pytest.raises(UserError) as error:
        api.sweep(opened, events.append)
    assert error.value.faults == (
        "technique ties(keep=0.05…0.9,scaling=0.2…2): ranges are searched by Optuna; pip install 'time_ray[search]'",
    )
    assert events == []


def test_ranges_beside_values_and_other_inits_by_a_rule(tmp_path: Path) -> None:
    opened = experiment(
        tmp_path,
        init=["zs", "ema"],
        deploy=["ft", "all"],
        technique=["average", "ties", {"name": "ties", "keep": {"from": 0.1, "to": 0.5}, "scaling": 0.5}],
        exclude={"init": "ema", "technique": "ties(scaling=0.5)"},
    )
    (found,) = opened.study.tunings
    assert found.name == "ties for zs/all · mini-tiny 2 steps"
    assert found.fixed == {"scaling": 0.5}
    assert {cell.axes["technique"] for cell in found.cells} == {"ties(scaling=0.5)"}
    assert api.show(opened.path)["technique"][2] == {"name": "ties", "keep": {"from": 0.1, "to": 0.5}, "scaling": 0.5}
