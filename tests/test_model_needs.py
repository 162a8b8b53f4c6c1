"""Needs by model: what is said of one, what follows from memory, what is refused, and what it changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from time_ray import api
from time_ray.clip.cost import activations
from time_ray.clip.mini import MODELS
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.model_needs import ACCELERATOR_GB, USABLE, model_needs, needs_by_model, settled, smaller, training_bytes

Make = Callable[..., Path]
GRID = {"init": "ft", "deploy": "ft", "technique": "average", "budget": "1 steps", "data": "mini"}


def experiment(run: dict[str, Any], models: Any = ("mini-tiny", "mini-base"), **training: Any) -> Experiment:
    return Experiment.model_validate({"name": "x", **GRID, "model": list(models), "run": run, "training": training})


def test_where_nothing_is_said_a_trial_is_one_worker() -> None:
    (tiny, base) = needs_by_model(experiment({})).values()
    assert tiny == base
    assert (tiny.workers, tiny.gpus, tiny.accelerator, tiny.threads, tiny.loaders) == (1, None, None, 1, None)
    assert (tiny.accumulate, tiny.recompute) == (1, False)


def test_what_is_said_of_a_model_goes_before_what_is_said_of_all_and_its_label_before_its_name() -> None:
    models = [{"name": "mini-base", "weights": "a.pt"}, {"name": "mini-base"}, {"name": "mini-tiny"}]
    run = {
        "workers": 2,
        "accelerator": "L4",
        "by_model": {"mini-base": {"workers": 4, "threads": 3}, "mini-base@a.pt": {"workers": 1, "accelerator": None}},
    }
    found = needs_by_model(experiment(run, models))
    assert [(need.workers, need.threads, need.accelerator, need.gpus) for need in found.values()] == [
        (1, 3, None, None),
        (4, 3, "L4", 1.0),
        (2, 1, "L4", 1.0),
    ]


def pretend(monkeypatch: pytest.MonkeyPatch, activations_mb: float) -> None:
    """A model of 250 MB, 1 GB with all that belongs to its training, whose activations take so much a pair."""
    monkeypatch.setattr("time_ray.model_needs.weight_bytes", lambda _: 250_000_000)
    monkeypatch.setattr(
        "time_ray.model_needs._activation_bytes", lambda _, pairs, **__: int(pairs * activations_mb * 1e6)
    )


@pytest.mark.parametrize(
    ("mb", "said", "workers", "accumulate"),
    [
        (20, {}, 1, 1),  # 10 GB on 21.6
        (100, {}, 4, 1),  # 51 GB: 2 workers have 26 each
        (1000, {}, 8, 4),  # 64 pairs of a worker are too many, 16 are not
        (100, {"workers": 1}, 1, 4),  # 512 pairs in parts of 128
        (100, {"accumulate": 2}, 2, 2),
        (100, {"workers": 1, "accumulate": 1}, 1, 1),  # as it was said
        (100, {"gpus": 0.5}, 1, 8),  # workers do not share a GPU
        (100, {"accelerator": "a new one"}, 1, 1),  # whose memory nobody knows
        (100_000, {}, 8, 64),  # the least that can be done
    ],
)
def test_workers_and_then_micro_batches_are_as_many_as_memory_wants(
    mb: float, said: dict[str, Any], workers: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, mb)
    written = experiment({"accelerator": "L4", **said}, ["mini-tiny"])
    found = model_needs(written, written.model[0])
    assert (found.workers, found.accumulate) == (workers, accumulate)


def test_models_that_fit_no_batch_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1)
    monkeypatch.setitem(ACCELERATOR_GB, "small", 1)
    with pytest.raises(UserError) as refused:
        needs_by_model(experiment({"accelerator": "small", "by_model": {"mini-base": {"workers": 1, "accumulate": 1}}}))
    assert refused.value.faults == tuple(
        f"run: {model} needs 1.0 GB for weights, gradients and optimiser, of a GPU of type small a worker has "
        f"900.0 MB; name a larger one: run.by_model.{model}.accelerator=..."
        for model in ("mini-tiny", "mini-base")
    )
    assert pytest.approx(0.9) == USABLE


def test_settled_needs_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 100)
    written = experiment({"accelerator": "L4", "by_model": {"mini-tiny": {"recompute": True}}})
    known, found = settled(written), needs_by_model(written)
    monkeypatch.undo()
    assert needs_by_model(known) == found
    assert found["mini-tiny"].workers == 4


def test_memory_follows_the_share_of_a_worker_and_the_precision() -> None:
    def taken(precision: str = "fp32", **run: Any) -> int:
        written = experiment(run, ["mini-tiny"], batch_size=256, precision=precision)
        return training_bytes(written, written.model[0], model_needs(written, written.model[0]))

    tiny = MODELS["mini-tiny"]
    state = 4 * tiny.num_bytes
    assert taken() - state == 256 * tiny.pair_bytes
    assert taken(workers=2, accumulate=4) - state == 32 * tiny.pair_bytes
    assert taken(workers=2, accumulate=3) - state == 43 * tiny.pair_bytes
    assert taken(recompute=True) - state < 0.6 * (taken() - state)
    assert taken("bf16") - state < 0.7 * (taken() - state)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mini-tiny" else pytest.mark.nightly) for name in MODELS]
)
def test_mini_models_know_their_activations(name: str) -> None:
    found = activations(name)
    assert MODELS[name].pair_bytes == pytest.approx(found.a_pair, rel=0.01)
    assert found.fixed < 0.1 * found.a_pair * 64


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"gpus": 2}, ["run.gpus: a worker uses one GPU, not 2"]),
    ({"by_model": {"mini-base": {"gpus": 2}}}, ["run.by_model.mini-base.gpus: a worker uses one GPU, not 2"]),
    ({"gpus": 0.5, "workers": 2}, ["run.gpus: 2 workers cannot share a GPU (0.5 each)"]),
    (
        {"gpus": 0.5, "by_model": {"mini-base": {"workers": 2}}},
        ["run.by_model.mini-base.workers: 2 workers cannot share a GPU (0.5 each)"],
    ),
    ({"gpus": 1, "workers": 0}, ["run.gpus: 1 GPUs, but run.workers=0 trains in this process on the CPU"]),
    ({"accelerator": "L4", "workers": 0}, ["run.accelerator: L4, but run.workers=0 trains in this process"]),
    ({"accelerator": "L4", "gpus": 0}, ["run.accelerator: L4 is a GPU, but run.gpus=0 asks for none"]),
    (
        {"by_model": {"mini-tiny": {"workers": 0}}},
        ["run.by_model.mini-tiny.workers: 0 runs everything in"],
    ),
    ({"workers": 3}, ["run.workers: 3 workers cannot share a batch of 64 pairs; give a divisor of it"]),
    (
        {"workers": 4, "by_model": {"mini-base": {"accumulate": 17}}},
        ["run.by_model.mini-base.accumulate: a worker's share of a batch has 16 pairs, which make no 17"],
    ),
    (
        {"by_model": {"mini-bse": {}}},
        ["run.by_model.mini-bse: no such model in this experiment 'mini-bse'; did you"],
    ),
    (
        {"gpus": 3, "by_model": {"mini-base": {"workers": 3}, "mini": {}}},
        [
            "run.by_model.mini: no such model in this experiment 'mini'",
            "run.gpus: a worker uses one GPU, not 3",
            "run.by_model.mini-base.workers: 3 workers cannot share a batch of 64",
        ],
    ),
]


@pytest.mark.parametrize(("run", "lines"), REFUSED)
def test_what_cannot_work_is_refused_at_once_all_of_it(
    run: dict[str, Any], lines: list[str], new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, model=["mini-tiny", "mini-base"], run={"workers": 1, **run})
    done = time_ray("plan", path, "training.batch_size=64")
    assert (done.status, done.out) == (2, "")
    found = [line.split(": ", 2)[2] for line in done.err.splitlines()]
    assert [line[: len(start)] for line, start in zip(found, lines, strict=True)] == lines


def test_words_of_the_command_line_reach_one_model_and_show_writes_no_more_than_was_said(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(tmp_path, model=["mini-tiny", "mini-base"], run={"workers": 1, "threads": 2})
    words = ["run.by_model.mini-base.workers=2", "run.by_model.mini-base.recompute=true"]
    shown = time_ray("show", path, *words)
    assert yaml.safe_load(shown.out)["run"]["by_model"] == {"mini-base": {"workers": 2, "recompute": True}}
    plan = json.loads(time_ray("plan", path, *words, "-f", "json").out)
    assert [(need["workers"], need["threads"]) for need in plan["needs"].values()] == [(1, 2), (2, 2)]
    table = time_ray("plan", path, *words).out
    assert " 2 workers   mini-base: 2 CPU threads, a GPU if there is one, recompute, " in table
    table = time_ray("plan", path, *words, "run.by_model.mini-tiny.gpus=0", "run.by_model.mini-base.accelerator=L4").out
    assert " mini-tiny: 2 CPU threads, on the CPU, " in table
    assert " mini-base: 2 CPU threads, 1 GPU of type L4, recompute, " in table
    done = time_ray("plan", path, "run.by_model.mini-base.worker=2")
    assert done.err.endswith("run.by_model.mini-base.worker: unknown key; did you mean 'workers'?\n")


def test_needs_of_models_reach_their_trainings_and_no_key(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: each model trains as it is said of it, on its threads, and the cells are the same ones."""
    from time_ray.cluster import backend

    heard: list[tuple[str, int, bool, int]] = []
    train = backend.train

    def listening(clip: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        heard.append((clip.name, kwargs["accumulate"], kwargs["recompute"], torch.get_num_threads()))
        return train(clip, *args, **kwargs)

    monkeypatch.setattr(backend, "train", listening)
    grid = {key: value for key, value in GRID.items() if key != "data"}
    path = new_experiment(tmp_path, **grid, model=["mini-tiny", "mini-base"], stream={"tasks": 1}, run={"workers": 0})
    opened = api.open_experiment(path, ["run.by_model.mini-base={accumulate: 2, recompute: true, threads: 2}"])
    assert api.sweep(opened).exit_code == 0
    assert sorted(heard) == [("mini-base", 2, True, 2), ("mini-tiny", 1, False, 1)]
    assert [cell.key for cell in api.open_experiment(path).study.cells] == [cell.key for cell in opened.study.cells]


def test_a_plan_on_gpus_has_trials_with_their_own(
    new_experiment: Make, tmp_path: Path, time_ray: Callable[..., Any]
) -> None:
    path = new_experiment(
        tmp_path, model=["mini-tiny", "mini-base"], run={"workers": 1, "by_model": {"mini-base": {"workers": 4}}}
    )
    plan = json.loads(time_ray("plan", path, "training.batch_size=64", "--gpus", "4,8", "-f", "json").out)
    assert {model: cost["gpus"] for model, cost in plan["fleet"]["models"].items()} == {"mini-tiny": 1, "mini-base": 4}
    done = time_ray("plan", path, "training.batch_size=64", "--gpus", "2")
    assert done.err.startswith("error: --gpus 2: a trial of mini-base holds 4 GPUs")
    done = time_ray("plan", path, "training.batch_size=64", "--gpus", "4", "run.by_model.mini-tiny.gpus=0")
    assert "--gpus: run.gpus is 0, so trials of mini-tiny use none" in done.err


@pytest.mark.parametrize(
    ("mb", "run", "there", "line"),
    [  # 1 GB of weights and moments, and so much a pair of 512
        (100, {}, None, "set run.accumulate=2, which takes about 26.6 GB of a worker instead of 52.2 GB"),
        (
            100,
            {"accumulate": 2},
            21.6e9,
            "set run.accumulate=4, which takes about 13.8 GB of a worker instead of 26.6 GB",
        ),
        (5, {"accumulate": 512}, 0.5e9, "it takes about 1.0 GB of a worker, and no setting makes it fit"),
        (5, {}, 1.4e9, "set run.accumulate=8, which takes about 1.3 GB of a worker instead of 3.6 GB"),
    ],
)
def test_what_to_set_for_a_training_that_did_not_fit(
    monkeypatch: pytest.MonkeyPatch, mb: float, run: dict[str, Any], there: float | None, line: str
) -> None:
    pretend(monkeypatch, mb)
    monkeypatch.setattr("time_ray.model_needs.has_batch_norm", lambda _: False)
    asked = experiment({"gpus": 1, **run}, batch_size=512)
    spec = asked.model[0]
    assert smaller(asked, spec, model_needs(asked, spec), there).startswith(line)


def test_batches_of_batch_norm_are_spread_over_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 100)
    monkeypatch.setattr("time_ray.model_needs.has_batch_norm", lambda _: True)
    asked = experiment({"gpus": 1, "recompute": True}, batch_size=512)
    spec = asked.model[0]
    assert smaller(asked, spec, model_needs(asked, spec), 20e9).startswith(
        "set run.workers=4, which takes about 13.8 GB"
    )
