"""Experts are written beside the evaluation that follows, and nothing that follows from one is kept before it is."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from time_ray import api
from time_ray.cluster import backend as backend_module
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.work import work
from time_ray.core.errors import CellError, StoreError
from time_ray.core.recipe import Trained
from time_ray.data.sources import prepare
from time_ray.events import CellFailed, Event, ExpertTrained, ModelEvaluated

SECONDS = 60.0


class Swept:
    """Two cells of one trajectory on a backend of this process."""

    def __init__(self, path: Path) -> None:
        opened = api.open_experiment(path)
        prepare(opened.study.datasets.all, lambda _: None)
        self.cells = opened.study.cells
        self.coordinator = LocalCoordinator()
        self.backend = SweepBackend(opened.study, opened.store, self.coordinator)
        self.store = self.backend.store
        self.experts = [step.expert.key for step in self.cells[0].walk()]

    def has(self, expert: str) -> bool:
        return self.store.entry("weights", expert) is not None

    def events(self, *kinds: type[Event]) -> list[type[Event]]:
        return [type(event) for event in self.coordinator.events() if isinstance(event, kinds)]


@pytest.fixture
def swept(new_experiment: Callable[..., Path], tmp_path: Path) -> Swept:
    settings = {"init": "ft", "deploy": ["ft", "all"], "technique": "average", "stream": {"tasks": 2}}
    return Swept(new_experiment(tmp_path, **settings))


def test_an_expert_is_written_while_it_is_evaluated(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = threading.Semaphore(0)  # that have begun, but for the base's
    put, put_scores, outcomes = swept.store.put, swept.store.put_scores, backend_module.outcomes
    scored: list[list[bool]] = []

    def slow_put(key: str, *more: Any) -> Any:
        if key in swept.experts:
            assert swept.coordinator._leases[key] == swept.backend.holder
            assert evaluations.acquire(timeout=SECONDS)  # the next evaluation has begun before this is written
        return put(key, *more)

    def begun(*args: Any, **more: Any) -> Any:
        if scored:
            evaluations.release()
        return outcomes(*args, **more)

    def noted(*args: Any) -> Any:
        scored.append([swept.has(expert) for expert in swept.experts])
        return put_scores(*args)

    monkeypatch.setattr(swept.store, "put", slow_put)
    monkeypatch.setattr(swept.store, "put_scores", noted)
    monkeypatch.setattr(backend_module, "outcomes", begun)
    work(swept.cells[:1], swept.backend)
    assert scored == [[False, False], [True, False], [True, True]]
    assert not swept.coordinator._leases
    assert swept.events(ExpertTrained, ModelEvaluated) == [
        ModelEvaluated,
        *(ExpertTrained, ModelEvaluated),
        *(ExpertTrained, ModelEvaluated),
    ]


def test_what_cannot_be_written_was_not_made(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(key: str, *_: Any) -> None:
        raise StoreError(f"{key}: no space is left")

    monkeypatch.setattr(swept.store, "put", full)
    with pytest.raises(StoreError, match=f"{swept.experts[0]}: no space is left"):
        work(swept.cells, swept.backend)
    assert len(swept.store.keys("scores")) == 1  # of the base
    assert not swept.coordinator._leases
    assert swept.events(ExpertTrained, ModelEvaluated, CellFailed) == [ModelEvaluated]
    monkeypatch.undo()
    work(swept.cells, swept.backend)  # the same process goes on when the storage does
    assert all(map(swept.has, swept.experts))


def test_an_expert_is_kept_though_its_evaluation_fails(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = swept.backend.evaluate

    def broken(setting: Any, models: Any) -> Any:
        if swept.backend.scores(setting, setting.base) is not None:
            list(models)
            raise CellError("an image is broken")
        return evaluate(setting, models)

    monkeypatch.setattr(swept.backend, "evaluate", broken)
    work(swept.cells, swept.backend)
    assert [swept.has(expert) for expert in swept.experts] == [True, False]
    assert not swept.coordinator._leases
    assert swept.events(ExpertTrained, CellFailed) == [ExpertTrained, CellFailed, CellFailed]


def test_what_memory_has_let_go_is_read_once_it_is_written(swept: Swept) -> None:
    backend = swept.backend
    backend._memory.limit = 0
    (first, *_), base = swept.cells[0].walk(), swept.cells[0].setting.base
    assert isinstance(first.expert, Trained)
    backend.put(first.expert, backend.load(base))
    assert backend.has(first.expert)
    backend.load(base)
    backend._cache.keep_only(())
    found = backend.get(first.expert)
    assert found is not None
    assert found.keys() == backend.load(base).keys()
    backend.settle()
    assert swept.has(first.expert.key)
