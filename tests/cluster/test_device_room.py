"""What a GPU has room for decides where merges go, and how many models are evaluated at once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from time_ray import api
from time_ray.cluster import backend as backend_module
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.weight_cache import Weights, num_bytes


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


def test_a_pass_holds_as_many_models_as_fit(backend: SweepBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    (cell,) = backend.study.cells
    size = num_bytes(backend.load(cell.setting.base))
    cases = ((None, 100, 16), (None, 5, 5), (8, 100, 4), (8, 3, 3), (1, 100, 1), (100, 100, 16))
    for free, limit, models in cases:  # free and limit in models
        backend._memory.limit = limit * size
        monkeypatch.setattr(backend_module, "free_bytes", lambda _, free=free: None if free is None else free * size)
        assert backend._in_a_pass(cell.setting) == models
