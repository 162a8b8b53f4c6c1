"""How a sweep is executed reaches its trainings, and is no part of what they are."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from time_ray import api


def experts(opened: api.Opened) -> dict[str, dict[str, Tensor]]:
    assert api.sweep(opened).exit_code == 0
    found = {key: opened.store.get(key) for key in opened.store.keys("weights")}
    return {key: weights for key, weights in found.items() if weights is not None}


def test_memory_and_threads_change_no_key_and_no_more_than_rounding(
    new_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    made = {}
    for name, knobs in {
        "plain": ["run.loaders=0"],
        "threads": ["run.loaders=2"],
        "saving": ["run.accumulate=3", "run.recompute=true"],
    }.items():
        (tmp_path / name).mkdir()
        changes = {"init": "ft", "deploy": "ft", "technique": "average", "budget": "3 steps", "stream": {"tasks": 2}}
        path = new_experiment(tmp_path / name, **changes, training={"lr": 1e-3, "batch_size": 16, "eps": 1e-3})
        made[name] = experts(api.open_experiment(path, knobs))
    plain, threads, saving = made.values()
    assert plain.keys() == threads.keys() == saving.keys()
    assert plain
    moved = 0.0
    for key, weights in plain.items():
        for name, tensor in weights.items():
            assert torch.equal(tensor, threads[key][name])
            torch.testing.assert_close(tensor, saving[key][name], atol=1e-5, rtol=0)
            moved = max(moved, float((tensor - saving[key][name]).abs().max()))
    assert moved > 0  # by rounding: the step was another one
