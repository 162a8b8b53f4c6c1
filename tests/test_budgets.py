"""Budgets on the command line: a table for every model, and what they mean for a plan."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

BASE: dict[str, Any] = {
    "name": "compute",
    "init": "ema",
    "deploy": "ema",
    "technique": "average",
    "model": ["mini-tiny", "mini-large"],
    "budget": ["5000 GFLOPs", "3 steps"],
    "data": "mini",
    "stream": {"tasks": 5},
    "training": {"batch_size": 64},
}


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))

    def written(**changes: object) -> str:
        path = tmp_path / "compute.yaml"
        path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
        return str(path)

    return written


def test_a_row_for_each_model_and_budget(time_ray: Callable[..., Any], experiment: Callable[..., str]) -> None:
    as_json, as_csv, table = (time_ray("budget", experiment(), "-f", form) for form in ("json", "csv", "table"))
    rows = json.loads(as_json.out)
    assert [(row["model"], row["budget"]) for row in rows] == [
        (model, budget) for model in ("mini-tiny", "mini-large") for budget in ("5000 GFLOPs", "3 steps")
    ]
    for row in rows:
        assert row["maf"] == row["step_gflops"] * row["memory_ratio"] > 0
        assert row["samples"] == 64 * row["steps"]
        assert row["total_samples"] == 5 * row["samples"]
        assert row["total_gflops"] == pytest.approx(5 * row["steps"] * row["maf"])
    for row in rows[::2]:
        assert row["steps"] == round(5000 / (5 * row["maf"]))
    assert [list(row) for row in csv.DictReader(io.StringIO(as_csv.out))] == [list(row) for row in rows]
    assert str(rows[0]["steps"]) in table.out


def test_budgets_need_no_data(time_ray: Callable[..., Any], experiment: Callable[..., str]) -> None:
    done = time_ray("budget", experiment(data="nowhere", model={"name": "ViT-B-16", "weights": "no.pt"}, budget="1x",
                                         training={"batch_size": 512}, stream={"tasks": 20}), "-f", "json")  # fmt: skip
    (row,) = json.loads(done.out)
    assert (row["model"], row["steps"], row["total_samples"]) == ("ViT-B-16@no.pt", 1420, 14_540_800)


def test_one_task_a_dataset_asks_the_data(time_ray: Callable[..., Any], experiment: Callable[..., str]) -> None:
    path = experiment(stream={"order": "dataset_incremental"}, data={"adaptation": ["mini:chess", "mini:greek"]})
    done = time_ray("budget", path, "-f", "json")
    assert {row["tasks"] for row in json.loads(done.out)} == {2}


def test_a_plan_has_steps_and_gpu_hours(time_ray: Callable[..., Any], experiment: Callable[..., str]) -> None:
    path = experiment()
    plan = json.loads(time_ray("plan", path, "--tflops", "0.001", "-f", "json").out)
    rows = json.loads(time_ray("budget", path, "-f", "json").out)
    for row in rows:
        assert plan["steps"][row["model"]][row["budget"]] == row["steps"]
    hours = plan["gpu_hours"]
    assert hours["training"] == pytest.approx(sum(row["total_gflops"] for row in rows) / 3600, rel=0.01)
    assert hours["tflops"] == hours["evaluation_tflops"] == 0.001
    assert "at 40 TFLOP/s sustained" in time_ray("plan", path).out
    assert json.loads(time_ray("plan", path, "budget=3steps", "-f", "json").out)["gpu_hours"] is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"budget": ["1 GFLOPs"]}, "budget.0: '1 GFLOPs' is less than a step for each of 5 tasks; give more, from"),
        ({"budget": ["1x", "1.8e9 GFLOPs"]}, "budget.1: '1.8e9 GFLOPs' is the same as '1x'; keep one"),
        ({"model": "mini-tyni"}, "model.0: model mini-tyni: open_clip has no such architecture; did you mean 'mini-"),
        (
            {"model": {"name": "ViT-B-16-SigLIP", "weights": "webli"}},
            "model.0: model ViT-B-16-SigLIP: SigLIP's sigmoid loss is not supported; choose a CLIP architecture",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["budget", "plan"])
def test_a_fault_is_one_line_with_its_place(
    time_ray: Callable[..., Any], experiment: Callable[..., str], verb: str, changes: dict[str, object], fault: str
) -> None:
    path = experiment(**{"model": "mini-tiny", "budget": "1x"} | changes)
    done = time_ray(verb, path)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: {path}:")
    assert fault in line
