"""A disk that fills up, or becomes read-only, stops a sweep with one clear line; the same command goes on later."""

from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import Faulty, Point, disk_full, read_only
from small import Small, at

from time_ray import api
from time_ray.core.errors import StoreError, UserError
from time_ray.store.files import Files


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (disk_full, r"\[Errno 28\].*No space left on device.*free space, then run the same command again: it resumes"),
        (read_only, r"\[Errno 30\].*Read-only file system.*see to the rights, then run the same command again"),
    ],
    ids=["full", "read-only"],
)
def test_the_sweep_stops_and_resumes(
    small: Small, tmp_path: Path, error: Callable[[], OSError], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [point for point in small.points if point.phase in ("before", "half")][4:]  # the first are the probe's
    for number in range(3):
        root, point = tmp_path / str(number), points[number * len(points) // 3]
        failing = Faulty(point, error)
        with pytest.raises(StoreError, match=remedy) as caught:
            api.sweep(at(small.opened, failing.files(root)))
        assert failing.failed
        assert len(str(caught.value).splitlines()) == 1
        with monkeypatch.context() as context:
            context.setattr("time_ray.store.lease._is_gone", lambda _: True)  # a lease cannot be removed there
            outcome = api.sweep(at(small.opened, Files(str(root))))
        assert outcome.exit_code == 0
        assert small.same(root), point


def test_a_full_disk_keeps_no_half_files(small: Small, tmp_path: Path) -> None:
    """They would only take the room that is missing."""
    payload = next(
        n for n, op in enumerate(_operations(small, tmp_path / "whole")) if "/payloads/" in op and op[-1] == "s"
    )
    failing = Faulty(small.points[0]._replace(operation=payload, phase="half"), disk_full)
    with pytest.raises(StoreError):
        api.sweep(at(small.opened, failing.files(tmp_path / "full")))
    assert [path for path in (tmp_path / "full" / "payloads").rglob("*") if path.is_file()] == []


def _operations(small: Small, root: Path) -> list[str]:
    faulty = Faulty()
    api.sweep(at(small.opened, faulty.files(root)))
    return [operation.path for operation in faulty.operations]


def test_a_storage_that_is_read_only_is_refused_before_anything_is_computed(small: Small, tmp_path: Path) -> None:
    failing = Faulty(small.points[0], read_only)
    with pytest.raises(UserError, match=r"storage: .* is not writable \(\[Errno 30\].*Read-only file system"):
        api.sweep(at(small.opened, failing.files(tmp_path)))


def test_what_is_finished_is_shown_from_a_read_only_storage(small: Small, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert api.sweep(at(small.opened, Files(str(root)))).exit_code == 0
    failing = Faulty(Point(0, "before"), read_only)
    opened = at(small.opened, failing.files(root))
    outcome = api.sweep(opened)
    assert outcome.exit_code == 0
    assert all(result.done for result in outcome.results)
    assert "is not writable" in (outcome.tracking_error or "")  # MLflow has nothing here
    assert api.best(opened).rows
    assert small.same(root)
