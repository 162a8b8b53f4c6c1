"""Lengths and patched strategies on a real, tiny sweep: they add scores and no training; outcomes are kept whole."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from copied_results import copy_results

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.outcomes import accuracies
from time_ray.events import ModelEvaluated
from time_ray.merging import patch
from time_ray.per_image import PerImage
from time_ray.store.store import Store

Make = Callable[..., Path]
SMALL = {"init": ["ft", "ema"], "deploy": ["ft", "ema"], "technique": ["average"], "stream": {"tasks": 2}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, new_experiment: Make) -> Path:
    """The storage of the whole sweep."""
    path = new_experiment(tmp_path_factory.mktemp("finished"), **SMALL)
    assert api.sweep(api.open_experiment(path)).exit_code == 0
    return path.parent / "runs"


@pytest.fixture
def path(tmp_path: Path, new_experiment: Make, finished: Path) -> Path:
    """The experiment, with a storage of its own that has all results."""
    made = new_experiment(tmp_path, **SMALL)
    copy_results(finished, tmp_path / "runs")
    return made


def weights(opened: api.Opened) -> frozenset[str]:
    return opened.store.keys("weights")


def test_lengths_added_to_a_finished_sweep_are_all_that_is_run(path: Path) -> None:
    before = api.open_experiment(path)
    served = {one.cell.key: one.final["gm"] for one in api.sweep(before).results}
    longer = api.open_experiment(path, ["evaluation.lengths=[0.5,1.5]"])
    planned = api.plan(longer)
    finals = {one.final_key for one in api.status(before)}
    assert planned.trainings.to_do == 0
    assert planned.evaluations.to_do == 2 * len(finals)
    assert planned.bytes == 0
    kept, events = weights(before), []
    outcome = api.sweep(longer, events.append)
    assert outcome.exit_code == 0
    assert sum(isinstance(event, ModelEvaluated) for event in events) == 2 * len(finals)
    assert weights(longer) == kept
    assert {one.cell.key: one.final["gm"] for one in outcome.results} == served
    for one in outcome.results:
        half, more = one.at_lengths[0.5], one.at_lengths[1.5]
        assert half.distance == pytest.approx(one.rows[-1].distance * 0.5, rel=1e-3)
        assert more.distance == pytest.approx(one.rows[-1].distance * 1.5, rel=1e-3)
    assert api.plan(longer).evaluations.to_do == 0


def test_patched_strategies_added_to_a_finished_sweep_train_nothing(path: Path) -> None:
    api.sweep(api.open_experiment(path))
    patched = api.open_experiment(path, ["deploy=[ft,{name: ft, patch: 0.5}]"])
    planned = api.plan(patched)
    assert planned.trainings.to_do == 0
    assert planned.evaluations.to_do > 0
    results = {(one.cell.init.label, one.cell.deploy.label): one for one in api.sweep(patched).results}
    whole, half = results["ft", "ft"], results["ft", "ft(patch=0.5)"]
    base = safetensors.torch.load(_base(patched))
    wanted = patch(base, patched.store.get(whole.final_key) or {}, 0.5)
    found = patched.store.get(half.final_key) or {}
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    lengths = api.open_experiment(path, ["evaluation.lengths=[0.5]"])
    assert {one.cell.name: one for one in api.sweep(lengths).results}[whole.cell.name].at_lengths[0.5].scores["gm"] == (
        half.final["gm"]
    )


def _base(opened: api.Opened) -> bytes:
    from time_ray.clip.models import base_weights

    return safetensors.torch.save(dict(base_weights(opened.study.experiment.model[0])))


def test_the_best_is_exported_at_its_length(path: Path, tmp_path: Path) -> None:
    opened = api.open_experiment(path, ["evaluation.lengths=[0.25,0.5]", "init=[ft]", "deploy=[ft]"])
    api.sweep(opened)
    ranked = api.best(opened)
    file = api.export(opened, "best", tmp_path / "best")
    served = opened.store.get(ranked.winner.final_key) or {}
    base = safetensors.torch.load(_base(opened))
    wanted = served if ranked.leader.length == 1 else patch(base, served, ranked.leader.length)
    found = safetensors.torch.load_file(file)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert json.loads((tmp_path / "best/recipe.json").read_text())["length"] == ranked.leader.length
    assert api.register(opened, ranked).endswith("@best-in-time")


def test_scores_follow_from_outcomes_and_these_heal(path: Path) -> None:
    opened = api.open_experiment(path)
    results = api.sweep(opened).results
    images = PerImage(opened.store)
    for one in results:
        for row in one.rows:
            found = images.outcomes(row.scores_key)
            assert found is not None
            assert accuracies(found) == dict(row.accuracy)
            by_task = row.history.by_task[row.task]
            assert by_task is not None
            assert len(by_task) == 2
    test_images = images.test_images(results[0].cell.setting)
    assert test_images is not None
    tasks = test_images.tasks(results[0].cell.setting)
    assert {int(number) for of_task in tasks.values() for number in np.unique(of_task)} == {0, 1, 2}

    before = {one.cell.key: dict(one.final) for one in results}
    key = results[0].rows[-1].scores_key
    entry = opened.store.entry("scores", key)
    assert entry is not None
    payload = Path(opened.files.path(str(entry["payload"])))
    payload.write_bytes(payload.read_bytes()[:-1] + b"!")
    faults = [checked.fault for checked in api.store_verify(path) if checked.fault]
    assert "its digest does not match" in faults
    damaged = api.open_experiment(path)
    assert not all(one.done for one in api.status(damaged))
    again = api.sweep(damaged)
    assert again.exit_code == 0
    assert {one.cell.key: dict(one.final) for one in again.results} == before
    assert Store(damaged.files).arrays(key) is not None


def test_outcomes_that_nothing_needs_are_collected(path: Path) -> None:
    longer = api.open_experiment(path, ["evaluation.lengths=[0.5]"])
    api.sweep(longer)
    assert not list(api.store_gc([longer], young=True, dry=True))
    found = list(api.store_gc([api.open_experiment(path)], young=True))
    kinds = {item.path.split("/")[0] for item in found if item.path.split("/")[0] in ("scores", "payloads", "weights")}
    assert kinds == {"scores", "payloads"}
    assert api.open_experiment(path).store.keys("scores")
    assert all(one.done for one in api.status(api.open_experiment(path)))


@pytest.mark.nightly
def test_all_tasks_at_once_is_a_row_and_no_cell(path: Path, time_ray: Callable[..., object]) -> None:
    opened = api.open_experiment(path, ["multitask=true"])
    outcome = api.sweep(opened)
    assert outcome.exit_code == 0
    ranked = api.best(opened)
    (bound,) = [row for row in ranked.baselines if row.baseline == "multitask"]
    assert bound.results[0].cell.setting.trainings[0].steps == 4
    assert len(bound.results[0].cell.setting.trainings[0].task.concepts) == 6
    assert len(opened.study.cells) == 4


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("evaluation", {"lengths": [0]}, "greater than 0"),
        ("evaluation", {"lengths": [-1.0, 0.5]}, "greater than 0"),
        ("evaluation", {"lengths": ["long"]}, "number"),
        ("deploy", [{"name": "ft", "patch": -0.5}], "greater than or equal to 0"),
        ("init", [{"name": "ft", "patch": 0.5}], "patch is of what is served"),
    ],
)
def test_what_is_no_length_is_refused(path: Path, key: str, value: object, fault: str) -> None:
    import yaml

    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), key: value}))
    with pytest.raises(UserError) as found:
        api.open_experiment(path)
    assert any(fault in line and "tiny.yaml:" in line for line in found.value.faults), found.value.faults


def test_length_one_is_what_every_cell_serves() -> None:
    fields = {"name": "x", "init": "ft", "deploy": "ft", "technique": "average", "model": "m", "budget": "1 steps"}
    experiment = Experiment(**fields, data="mini", evaluation={"lengths": [1, 0.5, 0.5, 2]})
    assert experiment.evaluation.lengths == (0.5, 2.0)
