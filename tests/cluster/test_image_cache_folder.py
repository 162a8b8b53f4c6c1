"""Where a sweep keeps decoded images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from time_ray import api
from time_ray.cluster.backend import SweepBackend, _pixels_folder
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.data import images
from time_ray.events import Note
from time_ray.store.files import Files


def test_a_sweep_keeps_large_test_images_beside_its_weights(
    tmp_path: Path, new_experiment: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(images, "KEPT_SIDE", 8)  # so the mini world's count as large
    opened = api.open_experiment(new_experiment(tmp_path))
    (setting,) = opened.study.settings
    coordinator = LocalCoordinator()
    found = []
    for _ in range(2):
        backend = SweepBackend(opened.study, opened.store, coordinator)
        found += backend.evaluate(setting, [backend.load(setting.base)])
    assert found[0].accuracy == found[1].accuracy
    assert found[0].distance == 0
    assert list((tmp_path / "runs/pixels").glob("*/*.pixels"))
    notes = [event.text for event in coordinator.events() if isinstance(event, Note)]
    assert len(notes) == 1
    assert str(tmp_path / "runs/pixels") in notes[0]


def test_the_folder_is_named_by_the_environment_or_lies_under_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TIME_RAY_CACHE", raising=False)
    files = Files(str(tmp_path))
    assert _pixels_folder(files) == tmp_path / "pixels"
    monkeypatch.setattr(files, "is_local", False)  # an object storage
    assert _pixels_folder(files) is None
    monkeypatch.setenv("TIME_RAY_CACHE", str(tmp_path / "scratch"))
    assert _pixels_folder(files) == tmp_path / "scratch"
    monkeypatch.setenv("TIME_RAY_CACHE", "")
    assert _pixels_folder(files) is None
