"""Merges go to the GPU if it has room for them, and to the CPU if it turns out that it has none."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from time_ray import api
from time_ray.cluster import backend as backend_module
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.weight_cache import Weights


@pytest.fixture
def backend(new_experiment: Callable[..., Path], tmp_path: Path) -> SweepBackend:
    opened = api.open_experiment(new_experiment(tmp_path, init="ft", deploy="all", technique="average"))
    return SweepBackend(opened.study, opened.store, LocalCoordinator())


def test_a_merge_goes_where_there_is_room(backend: SweepBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    full: list[str] = []  # devices on which a merge turns out not to fit

    def merges(_: object, device: str) -> Weights:
        asked.append(device)
        if device in full:
            raise torch.OutOfMemoryError
        return {}

    (cell,) = backend.study.cells
    *_, last = cell.walk()
    backend.device = "cuda"
    monkeypatch.setattr(backend, "_merges", merges)
    for free, refusing in ((10**6, []), (80 * 10**9, []), (80 * 10**9, ["cuda"]), (None, [])):
        full[:] = refusing
        monkeypatch.setattr(backend_module, "free_bytes", lambda _, free=free: free)
        assert backend.merge(last.deployed) == {}
    assert asked == ["cpu", "cuda", "cuda", "cpu", "cpu"]
