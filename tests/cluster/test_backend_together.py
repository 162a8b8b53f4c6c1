"""Several workers of one trial: an expert that only rank 0 finds damaged is trained again by all of them, in step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing import spawn

from time_ray import api
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.realize import realize


def work(rank: int, path: Path, folder: Path) -> None:
    """Rebuild what the cell deploys at its end, on each of two workers."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=2)
    opened = api.open_experiment(path)
    (cell,) = opened.study.cells
    *_, last = cell.walk()
    weights = realize(last.deployed, SweepBackend(opened.study, opened.store, LocalCoordinator()))
    torch.save(weights, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.nightly
def test_workers_train_a_damaged_expert_together(new_experiment: Callable[..., Path], tmp_path: Path) -> None:
    training = {"batch_size": 8, "augment": "none", "eps": 1e-3}  # a large eps: rounding moves no step far
    path = new_experiment(tmp_path, init="ft", deploy="all", technique="average", training=training)
    opened = api.open_experiment(path)
    (result,) = api.sweep(opened).results
    expert = [step.expert.key for step in result.cell.walk()][1]
    whole = opened.store.get(result.final_key)
    for key in (expert, result.final_key):
        payload = tmp_path / "runs" / str((opened.store.entry("weights", key) or {})["payload"])
        payload.write_bytes(payload.read_bytes()[:-1] + b"?")
    spawn(work, (path, tmp_path), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert whole is not None
    assert one.keys() == other.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], tensor, atol=1e-5, rtol=0)  # two workers add up in another order
    assert api.open_experiment(path).store.get(expert) is not None
