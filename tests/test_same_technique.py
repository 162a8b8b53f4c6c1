"""`task_arithmetic` without a scaling is an average: one recipe, one training, and a note in the plan.

Weights of a window do nothing for a technique that takes none: a note, too.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from time_ray import merging
from time_ray.core.experiment import TechniqueSpec
from time_ray.study.techniques import resolved_technique

BASE: dict[str, Any] = {
    "name": "same",
    "init": ["ema", "all"],
    "deploy": ["ema", "all"],
    "technique": ["average"],
    "model": "mini-tiny",
    "budget": "3 steps",
    "data": "mini",
    "stream": {"tasks": 3},
}


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time_ray: Callable[..., Any]
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))

    def planned(**changes: object) -> dict[str, Any]:
        path = tmp_path / "same.yaml"
        path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
        done = time_ray("plan", str(path), "-f", "json")
        assert done.status == 0, done.err
        found: dict[str, Any] = json.loads(done.out)
        return found

    return planned


def test_two_names_of_one_technique_share_all_they_make(plan: Callable[..., dict[str, Any]]) -> None:
    alone, both = plan(), plan(technique=["average", "task_arithmetic"])
    assert (alone["notes"], alone["cells"], both["cells"]) == ([], 4, 8)
    assert both["trainings"]["distinct"] == alone["trainings"]["distinct"]
    assert both["merges"] == alone["merges"]
    assert both["evaluations"] == alone["evaluations"]
    assert both["notes"] == [
        "technique task_arithmetic is average (its scaling is 1 / number of experts): they share all they make"
    ]


def test_weights_of_a_window_are_of_techniques_that_take_them(plan: Callable[..., dict[str, Any]]) -> None:
    weighed = plan(deploy=["window", {"name": "window", "weights": "linear"}], technique=["average", "ties"])
    assert weighed["notes"] == ["weights of window(weights=linear) are without effect with ties"]


def test_a_running_merge_that_cannot_leave_the_base_is_told(plan: Callable[..., dict[str, Any]]) -> None:
    strategies = ["ema", {"name": "ema", "start": "expert"}, "all"]
    techniques = ["average", "consensus", {"name": "consensus", "min_agree": 1}, "model_stock"]
    notes = plan(deploy=strategies, technique=techniques)["notes"]
    text = "stays at the base, with which nothing agrees; write {name: ema, start: expert}"
    assert notes == [f"ema with {name} {text}" for name in ("consensus", "model_stock")]


def test_a_training_that_is_too_short_for_its_snapshots_is_noted(plan: Callable[..., dict[str, Any]]) -> None:
    within = {"last": 5, "every": 3}
    found = plan(training={"batch_size": 8, "average_within": within}, budget=["4 steps", "13 steps"])
    assert found["notes"] == ["training.average_within: 2 of 5 snapshots in a training of 4 steps"]


def test_a_share_of_the_strategy_stays_the_averages_alone(plan: Callable[..., dict[str, Any]]) -> None:
    weighted = [{"name": "ema", "weight": 0.3}]
    both = plan(init=weighted, deploy=weighted, technique=["average", "task_arithmetic"])
    assert both["trainings"]["distinct"] == 5  # the first task is everybody's


@pytest.mark.parametrize("params", [{"scaling": 0.5}, {"keep_norm": True}, {"lines": {"alpha": 0.2}}])
def test_what_is_set_is_no_average(params: dict[str, object]) -> None:
    assert resolved_technique(TechniqueSpec(name="task_arithmetic", params=params)).name == "task_arithmetic"


def test_the_two_agree() -> None:
    from time_ray.merging.toy_models import near, world

    base, experts = world(4)
    assert near(merging.merge(base, experts, "task_arithmetic"), merging.merge(base, experts, "average"))
    assert near(merging.ema(base, experts, "task_arithmetic"), merging.ema(base, experts, "average", weight=0.5), 1e-5)
