"""Stop requests reach the sweep that they are for, and no other."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from time_ray.core.errors import StoreError
from time_ray.store.files import Files
from time_ray.store.lease import lease
from time_ray.store.stop_request import How, request_stop, stop_requests

NAME = "sweep"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(str(tmp_path))


def waited_for(condition: Callable[[], object]) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_requests_are_honoured_once_each_and_removed(files: Files) -> None:
    heard: list[How] = []
    with lease(files, NAME) as held, stop_requests(files, NAME, held, heard.append, 0.01):
        for how in ("finish", "finish", "now"):
            holder = request_stop(files, NAME, how)  # type: ignore[arg-type]
            assert holder is not None
            assert holder.file == held
            assert waited_for(lambda how=how: how in heard)
    assert heard == ["finish", "now"]
    assert files.list("stops", recursive=True) == []


def test_nobody_is_asked_where_nobody_runs(files: Files) -> None:
    with lease(files, "other"):
        assert request_stop(files, NAME, "now") is None
    assert files.list("stops", recursive=True) == []


def test_a_request_for_a_sweep_that_died_stops_no_later_one(files: Files) -> None:
    files.write(b"", "stops", NAME, "0123.now")
    heard: list[How] = []
    with lease(files, NAME) as held, stop_requests(files, NAME, held, heard.append, 0.01):
        time.sleep(0.1)
    assert heard == []
    assert files.list("stops", recursive=True) == []


def test_a_storage_that_fails_for_a_while_is_asked_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, tries, heard = files.list, [], list[How]()

    def failing(*parts: str, **options: bool) -> object:
        tries.append(parts)
        if len(tries) < 3:
            raise StoreError("out of reach")
        return whole(*parts, **options)

    with lease(files, NAME) as held:
        request_stop(files, NAME, "finish")
        monkeypatch.setattr(files, "list", failing)
        with stop_requests(files, NAME, held, heard.append, 0.01):
            assert waited_for(lambda: heard == ["finish"])
