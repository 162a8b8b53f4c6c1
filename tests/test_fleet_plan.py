"""`plan --gpus` and `plan --measure`: what a sweep takes, before it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.core.metrics import AccuracyHistory
from time_ray.data.sources import prepare
from time_ray.fleet_plan import ASSUMED_START
from time_ray.flops import TFLOPS, Scored, Speed, scored
from time_ray.rates import (
    Rate,
    known_rates,
    read_rates,
    read_start_up,
    write_rates,
    write_start_up,
    write_timed,
)
from time_ray.results import CellResult, TaskResult

Command = Callable[..., Any]
NewExperiment = Callable[..., Path]


@pytest.fixture
def tiny(new_experiment: NewExperiment, tmp_path: Path) -> Path:
    """12 trainings of 2 steps in 4 settings of 3 tasks; its rates are known: 10 s a step, 1 s an evaluation."""
    path = new_experiment(tmp_path)
    opened = api.open_experiment(path)
    write_timed(opened.store, opened.study.cells, {"mini-tiny": Rate(10.0, 1.0)}, "a test")
    return path


def test_a_plan_on_gpus(tiny: Path, time_ray: Command) -> None:
    plan = json.loads(time_ray("plan", tiny, "--gpus", "1,4,100", "--price", "3", "-f", "json").out)
    fleet = plan["fleet"]
    work = 10.0 * 2 * plan["trainings"]["to_do"] + plan["evaluations"]["to_do"]
    one, four, many = (fleet["on"][count] for count in ("1", "4", "100"))
    assert one["seconds"] == pytest.approx(work + ASSUMED_START.first + (fleet["trials"] - 1) * ASSUMED_START.later)
    assert one["idle"] == pytest.approx(1 - work / one["seconds"], abs=1e-3)
    assert one["seconds"] > four["seconds"] > many["seconds"] >= fleet["longest_chain"]["seconds"] + ASSUMED_START.first
    assert fleet["longest_chain"]["trainings"] == plan["stream"]["tasks"]
    assert fleet["work_gpu_hours"] == pytest.approx(work / 3600, abs=1e-3)
    assert many["gpu_hours"] == pytest.approx(100 * many["seconds"] / 3600, abs=1e-3)
    assert many["cost"] == pytest.approx(3 * many["gpu_hours"], abs=0.01)
    assert 4 < fleet["enough"] <= fleet["trials"]
    assert fleet["bytes_written"] == plan["bytes"]
    assert fleet["models"] == {
        "mini-tiny": {"step": 10.0, "evaluation": 1.0, "gpus": 1.0, "source": "plan --measure on a test"}
    }


def test_people_read_a_table_and_what_more_gpus_would_help(tiny: Path, time_ray: Command) -> None:
    done = time_ray("plan", tiny, "--gpus", "1,64")
    assert "GPU-hours   idle" in done.out
    assert "cost" not in done.out
    assert "GPUs nothing gets faster: the longest chain of 3 tasks takes" in done.out
    assert "10 s a step, 1 s an evaluation: plan --measure on a test" in done.err
    assert "cost" in time_ray("plan", tiny, "--gpus", "1,64", "--price", "2").out
    slower = json.loads(time_ray("plan", tiny, "--gpus", "1", "--mtbf", "1", "-f", "json").out)
    assert slower["fleet"]["on"]["1"]["seconds"] > json.loads(
        time_ray("plan", tiny, "--gpus", "1", "-f", "json").out
    )["fleet"]["on"]["1"]["seconds"]  # fmt: skip
    assert "fleet.on.64.seconds," in time_ray("plan", tiny, "--gpus", "1,64", "-f", "csv").out


def test_a_plan_that_nobody_measured_says_what_it_assumes(
    new_experiment: NewExperiment, tmp_path: Path, time_ray: Command
) -> None:
    path = new_experiment(tmp_path)
    assert json.loads(time_ray("plan", path, "-f", "json").out)["fleet"] is None
    plans = [
        json.loads(time_ray("plan", path, "--gpus", "1", *words, "-f", "json").out)["fleet"]["models"]["mini-tiny"]
        for words in ([], ["--tflops", "0.04"])
    ]
    assert plans[1]["step"] == pytest.approx(1000 * plans[0]["step"])
    assert plans[1]["evaluation"] == pytest.approx(1000 * plans[0]["evaluation"])
    assert plans[0]["source"].startswith("assumed from FLOPs at 40 TFLOP/s in fp32 (--tflops), 40 in evaluation")
    bf16 = api.open_experiment(path, ["training.precision=bf16"]).study
    assert Speed.of(bf16) == (TFLOPS["bf16"], TFLOPS["fp32"], "bf16")
    assert Speed.of(bf16, 800.0) == (800.0, 2 * TFLOPS["fp32"], "bf16")


def test_prompts_are_counted_with_their_templates(new_experiment: NewExperiment, tmp_path: Path) -> None:
    path = new_experiment(tmp_path)
    (tmp_path / "runs" / "data").unlink()  # those that are there have few test images
    study = api.open_experiment(path).study
    prepare(study.datasets.all, lambda _: None)
    sources = (*study.datasets.adaptation, *study.datasets.evaluation)
    rows = [len(source.open().split("test")) for source in sources]
    cards = [source.open().card for source in sources]
    assert scored(study) == Scored(sum(rows), sum(len(card.classes) * len(card.templates) for card in cards))
    other = api.open_experiment(path, ["evaluation.templates=['a {}']", "evaluation.subset=0.5"]).study
    assert scored(other) == Scored(sum(min(n, 300) for n in rows), sum(len(card.classes) for card in cards))


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["--gpus", "8,x,0"], ["--gpus: 'x' is no number of GPUs", "--gpus: '0' is no number of GPUs"]),
        (["--price", "3", "--mtbf", "9"], ["--price: means nothing without --gpus", "--mtbf: means nothing without"]),
        (
            ["--gpus", "2,8", "run.workers=4"],
            ["--gpus 2: a trial of mini-tiny holds 4 GPUs (run.workers x run.gpus)"],
        ),
        (["--gpus", "2", "run.gpus=0"], ["--gpus: run.gpus is 0, so trials of mini-tiny use none; set run.gpus=1"]),
    ],
)
def test_a_fault_is_a_line(tiny: Path, time_ray: Command, words: list[str], faults: list[str]) -> None:
    done = time_ray("plan", tiny, *words)
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == len(faults)
    for line, fault in zip(done.err.splitlines(), faults, strict=True):
        assert line.startswith(f"error: {fault}")


def test_what_is_timed_is_known_until_a_sweep_has_measured(tiny: Path, time_ray: Command) -> None:
    opened = api.open_experiment(tiny)
    assert "timing mini-tiny" in time_ray("plan", tiny, "--measure", "-f", "json").err
    (timed,) = known_rates(opened.store, opened.study.cells).values()
    assert 0 < timed.rate.step < 10
    assert 0 < timed.rate.evaluation < 100
    assert timed.source.startswith("plan --measure on a CPU of")
    history = AccuracyHistory([{}, {}], (), ())
    rows = [TaskResult(task, history, {"train": 20.0, "eval": 3.0}) for task in (0, 1)]
    write_rates(opened.store, [CellResult(opened.study.cells[0], tuple(rows), "", None)])
    (swept,) = known_rates(opened.store, opened.study.cells).values()
    assert swept.source == "a sweep on this storage"
    write_timed(opened.store, opened.study.cells, {"mini-tiny": Rate(7.0, 7.0)}, "a test")
    assert read_rates(opened.store, opened.study.cells) == {"mini-tiny": swept.rate}


def test_timing_again_takes_the_place_of_what_was_timed(tiny: Path) -> None:
    opened = api.open_experiment(tiny)
    assert read_rates(opened.store, opened.study.cells) == {"mini-tiny": Rate(10.0, 1.0)}
    write_timed(opened.store, opened.study.cells, {"mini-tiny": Rate(3.0, 2.0)}, "another")
    for store in (opened.store, api.open_experiment(tiny).store):
        assert read_rates(store, opened.study.cells) == {"mini-tiny": Rate(3.0, 2.0)}
    assert len(opened.store.keys("rates")) == 1


def test_a_plan_on_a_cluster_goes_by_its_room(tiny: Path, time_ray: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from time_ray.cluster import ray_process

    monkeypatch.setattr(ray_process, "cluster_slots", lambda _: 3)
    words = ["plan", tiny, "run.workers=1", "-f", "json"]
    here = json.loads(time_ray(*words).out)
    assert here["on"] == "this machine"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    there = json.loads(time_ray(*words).out)
    assert there["on"] == "the cluster"
    alone = json.loads(time_ray(*words, "run.trials=1").out)
    assert alone["on"] == "run.trials"
    assert there["seconds"] == pytest.approx(alone["seconds"] / 3, abs=0.1)
    assert "on the cluster of RAY_ADDRESS" in time_ray(*words[:-2]).out


def test_what_trials_took_to_start_is_known_from_the_newest_sweep(tiny: Path, time_ray: Command) -> None:
    store = api.open_experiment(tiny).store
    write_start_up(store, 20.0, None)  # no process was used again
    assert read_start_up(api.open_experiment(tiny).store) is None
    write_start_up(store, 20.0, 2.0)
    write_start_up(store, 30.0, 3.0)
    starts = json.loads(time_ray("plan", tiny, "--gpus", "1", "-f", "json").out)["fleet"]["start_up"]
    assert starts == {"first": 30.0, "later": 3.0, "source": "a sweep on this storage"}
