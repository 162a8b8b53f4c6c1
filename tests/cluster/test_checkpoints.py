"""Step checkpoints: a training that was cut off within a task goes on where it was."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from time_ray import api
from time_ray.cluster import checkpoints
from time_ray.cluster.checkpoints import StepCheckpoints
from time_ray.cluster.ranks import Ranks
from time_ray.store.files import Files
from time_ray.store.store import Store


def digests(opened: api.Opened) -> dict[str, object]:
    store = opened.store
    return {key: (store.entry("weights", key) or {})["digest"] for key in store.keys("weights")}


def curves(opened: api.Opened) -> dict[str, object]:
    return {key: (opened.store.entry("weights", key) or {}).get("curve") for key in opened.store.keys("weights")}


def test_a_training_cut_off_within_a_task_ends_with_the_same_bits(
    new_experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"init": "ft", "deploy": "ft", "technique": "average", "budget": "6 steps", "stream": {"tasks": 2}}
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
    whole, cut = (api.open_experiment(new_experiment(folder, **changes)) for folder in folders)
    assert api.sweep(whole).exit_code == 0
    monkeypatch.setattr(StepCheckpoints, "due", lambda *_: True)
    put, kept = Store.put_checkpoint, []

    def power_goes(store: Store, key: str, step: int, tensors: Mapping[str, Tensor]) -> None:
        put(store, key, step, tensors)
        kept.append(step)
        if len(kept) == 8:  # five for the first task, then after the third step of the second
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Store, "put_checkpoint", power_goes)
        assert api.sweep(cut).exit_code == 130
        assert kept == [1, 2, 3, 4, 5, 1, 2, 3]
        kept.append(0)
        assert api.sweep(cut).exit_code == 0
        assert kept[9:] == [4, 5]  # steps one to three were not done again
    assert digests(cut) == digests(whole)
    assert curves(cut) == curves(whole)
    assert not cut.files.list("progress", recursive=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    return now


def kept_steps(store: Store, clock: list[float], *, share: float, seconds: float = 1.0, cost: float = 3.0) -> list[int]:
    """The steps after which a training of 1,000 steps was kept, where a step and a checkpoint take so long."""
    kept = []
    progress = StepCheckpoints(store, "ab" * 32, Ranks(), share=share, num_bytes=3 * 10**9)
    for step in range(1, 1000):
        clock[0] += seconds
        if progress.due(step):
            kept.append(step)
            clock[0] += cost
            progress._saved, progress._cost = clock[0], cost
    return kept


def test_checkpoints_take_their_share_of_the_time(tmp_path: Path, clock: list[float]) -> None:
    store = Store(Files(str(tmp_path)))
    kept = kept_steps(store, clock, share=0.02)
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert kept[0] >= 300  # six seconds of writing at 0.5 GB/s
    assert all(150 <= gap <= 160 for gap in gaps)  # three seconds of writing
    assert kept_steps(store, clock, share=0.5)[0] >= checkpoints.LEAST_SECONDS
    assert kept_steps(store, clock, share=0.0) == []


def test_checkpoints_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(Files(str(tmp_path)))
    progress = StepCheckpoints(store, "ab" * 32, Ranks(), share=0.02, num_bytes=10)
    assert progress.load() is None
    progress.save(7, lambda: {"weights": torch.arange(3.0), "random": torch.arange(4, dtype=torch.uint8)})
    found = StepCheckpoints(store, "ab" * 32, Ranks(), share=0.02, num_bytes=10).load()
    assert found is not None
    assert found[0] == 7
    assert torch.equal(found[1]["weights"], torch.arange(3.0))
    assert found[1]["random"].dtype == torch.uint8
