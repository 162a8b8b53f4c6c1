"""The precision of an experiment: what follows from accelerators, what it is part of, and what is refused at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.model_needs import model_needs, settled_scoring, settled_training, training_bytes, unworkable

Make = Callable[..., Path]
GRID = {"init": "ft", "deploy": "ft", "technique": "average", "budget": "1 steps", "data": "mini"}
TINY = ModelSpec(name="mini-tiny")


def experiment(run: dict[str, Any], training: str = "auto", evaluation: str = "auto") -> Experiment:
    said = {"training": {"precision": training}, "evaluation": {"precision": evaluation}}
    return Experiment.model_validate({"name": "x", **GRID, "model": "mini-tiny", "run": run, **said})


@pytest.mark.parametrize(
    ("run", "training", "evaluation"),
    [
        ({}, "fp32", "fp32"),
        ({"gpus": 1}, "fp32", "fp32"),  # of a GPU that nobody names nothing is known
        ({"accelerator": "H100"}, "bf16", "tf32"),
        ({"accelerator": "T4"}, "fp16", "fp32"),
        ({"accelerator": "P100"}, "fp32", "fp32"),
        ({"accelerator": "H100", "by_model": {"mini-tiny": {"accelerator": "V100"}}}, "fp16", "fp32"),
    ],
)
def test_what_is_left_open_follows_from_the_accelerator(run: dict[str, Any], training: str, evaluation: str) -> None:
    written = experiment(run)
    assert settled_training(written, TINY).precision == training
    assert settled_scoring(written, TINY).precision == evaluation
    asked = experiment(run, "fp32", "fp32")
    assert settled_training(asked, TINY).precision == settled_scoring(asked, TINY).precision == "fp32"


@pytest.mark.parametrize(
    ("run", "training", "evaluation", "faults"),
    [
        ({"workers": 0}, "tf32", "auto", [("training", "tf32 is not there on a CPU, where mini-tiny runs; set fp32")]),
        ({"gpus": 0}, "auto", "tf32", [("evaluation", "tf32 is not there on a CPU, where mini-tiny runs; set fp32")]),
        (
            {"accelerator": "T4"},
            "bf16",
            "tf32",
            [
                ("training", "bf16 is not there on T4, where mini-tiny runs; set auto"),
                ("evaluation", "tf32 is not there on T4, where mini-tiny runs; set auto"),
            ],
        ),
        ({"accelerator": "T4"}, "fp16", "fp32", []),
        ({"accelerator": "A100"}, "tf32", "bf16", []),
        ({"workers": 0}, "bf16", "bf16", []),
    ],
)
def test_a_precision_that_workers_are_known_to_lack_is_refused_at_once(
    run: dict[str, Any], training: str, evaluation: str, faults: list[tuple[str, str]]
) -> None:
    found = list(unworkable(experiment(run, training, evaluation)))
    assert found == [((section, "precision"), text) for section, text in faults]


def test_it_is_part_of_what_results_are_and_float32_is_what_they_were(new_experiment: Make, tmp_path: Path) -> None:
    path = new_experiment(tmp_path)

    def keys(*changes: str) -> tuple[str, str]:
        (setting,) = api.open_experiment(path, changes).study.settings
        return setting.trainings[0].key, setting.evaluation_key

    auto = keys()
    assert keys("training.precision=fp32", "evaluation.precision=fp32") == auto
    assert keys("run.workers=1", "run.accelerator=H100") == keys(
        "training.precision=bf16", "evaluation.precision=tf32", "run.workers=1"
    )
    others = {keys(f"training.precision={name}", "run.workers=1")[0] for name in ("tf32", "bf16", "fp16")}
    assert len(others | {auto[0]}) == 4
    scored = {keys(f"evaluation.precision={name}", "run.workers=1")[1] for name in ("tf32", "bf16")}
    assert len(scored | {auto[1]}) == 3


def test_tf32_takes_the_memory_of_float32_and_16_bits_less() -> None:
    taken = {}
    for precision in ("fp32", "tf32", "bf16"):
        written = experiment({"workers": 1}, precision)
        taken[precision] = training_bytes(written, TINY, model_needs(written, TINY))
    assert taken["tf32"] == taken["fp32"] > taken["bf16"]


def test_plan_shows_what_it_comes_to(new_experiment: Make, tmp_path: Path, time_ray: Any) -> None:
    path = new_experiment(tmp_path)
    done = time_ray("plan", path, "run.workers=1", "run.accelerator=A100")
    assert "to train in bf16, scored in tf32" in " ".join((done.out + done.err).split())
    opened = api.open_experiment(path, ["run.workers=1", "run.accelerator=A100"])
    needs = api.plan(opened).needs["mini-tiny"]
    assert (needs.precision, needs.evaluation_precision) == ("bf16", "tf32")


def test_tf32_where_there_is_no_gpu_is_said_before_anything_runs(new_experiment: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation.precision: tf32 is not there on a CPU, where mini-tiny runs"):
        api.open_experiment(new_experiment(tmp_path), ["evaluation.precision=tf32"])
