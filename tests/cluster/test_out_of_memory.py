"""Memory that is short: what fits in smaller parts goes on, what does not is a line with the setting that helps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from time_ray import api
from time_ray.clip import evaluate
from time_ray.clip.halving import Halving
from time_ray.cluster import backend
from time_ray.realize import IncrementalMerges

Make = Callable[..., Path]
SMALL = {"init": "ft", "deploy": ["ft", "all"], "technique": "average", "stream": {"tasks": 2}}
LONG = "Tried to allocate 2 GiB. GPU 0 has a total capacity of 79 GiB."


def short(*_: object, **__: object) -> Any:
    msg = f"CUDA out of memory. {LONG}"
    raise torch.OutOfMemoryError(msg)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Memory is short for the first call alone."""
    calls: list[None] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return short() if len(calls) == 1 else function(*args, **kwargs)

    return call


def swept(path: Path, *words: str) -> tuple[api.Outcome, list[Any]]:
    opened = api.open_experiment(path, words)
    outcome = api.sweep(opened)
    return outcome, [[dict(row.accuracy) for row in result.rows] for result in api.status(opened)]


def test_a_training_that_fits_nowhere_is_tried_twice_and_says_what_to_set(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, tried = backend.train, list[int]()

    def of_two_steps(*args: Any, **kwargs: Any) -> Any:
        tried.append(kwargs["steps"])
        return train(*args, **kwargs) if kwargs["steps"] == 2 else short()

    monkeypatch.setattr(backend, "train", of_two_steps)
    outcome, _ = swept(new_experiment(tmp_path, **SMALL, budget=["2 steps", "3 steps"]))
    assert tried.count(3) == 2  # for two cells
    assert sum(result.done for result in outcome.results) == 2  # the others
    said = {failure.error for failure in outcome.failures.values()}
    assert len(outcome.failures) == 2
    assert len(said) == 1
    assert said.pop().startswith("out of memory in training (CUDA out of memory); ")


def test_memory_that_is_short_for_a_moment_is_no_failure(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "train", once(backend.train))
    assert swept(new_experiment(tmp_path, **SMALL))[0].exit_code == 0


@pytest.fixture
def undisturbed(new_experiment: Make, tmp_path: Path) -> list[Any]:
    (tmp_path / "undisturbed").mkdir()
    outcome, scores = swept(new_experiment(tmp_path / "undisturbed", **SMALL))
    assert outcome.exit_code == 0
    return scores


def test_an_evaluation_goes_on_with_fewer_images_and_fewer_models(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[Any]
) -> None:
    outcomes, image_features, text_features = backend.outcomes, evaluate.image_features, evaluate.text_features
    passes: list[int] = []
    batches: list[int] = []

    def of_one(clip: Any, models: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(len(models))
        return outcomes(clip, models, *args, **kwargs) if len(models) == 1 else short()

    def of_few(features: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
        def call(clip: Any, batch: Tensor) -> Tensor:
            batches.append(len(batch))
            return features(clip, batch) if len(batch) <= 40 else short()

        return call

    monkeypatch.setattr(backend, "outcomes", of_one)
    monkeypatch.setattr(evaluate, "image_features", of_few(image_features))
    monkeypatch.setattr(evaluate, "text_features", of_few(text_features))
    outcome, scores = swept(new_experiment(tmp_path, **SMALL))
    assert outcome.exit_code == 0
    assert max(passes) > 1
    assert max(batches) > 40
    assert scores == undisturbed


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("an evaluation", "out of memory in an evaluation (CUDA out of memory); lower run.cache_gb"),
        ("a merge", "out of memory in a merge (CUDA out of memory); lower run.cache_gb"),
    ],
)
def test_what_fits_nowhere_is_a_line(
    new_experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: str
) -> None:
    if place == "a merge":
        monkeypatch.setattr(IncrementalMerges, "__call__", short)
    else:
        monkeypatch.setattr(evaluate, "image_features", short)
    outcome, _ = swept(new_experiment(tmp_path, **SMALL))
    failed = {key: failure.error for key, failure in outcome.failures.items()}
    assert all(error.startswith(line) for error in failed.values())
    assert len(failed) == (1 if place == "a merge" else 2)  # ft/ft merges nothing
    assert sum(result.done for result in outcome.results) == 2 - len(failed)


def test_halves_are_found_once_and_rows_stay_in_order() -> None:
    tried: list[int] = []

    def run(batch: Tensor) -> list[Tensor]:
        tried.append(len(batch))
        return [2 * batch, -batch] if len(batch) <= 3 else short()

    halving, batch = Halving(), torch.arange(10)
    for _ in range(2):
        twice, minus = halving.over(run, batch)
        assert twice.tolist() == (2 * batch).tolist()
        assert minus.tolist() == (-batch).tolist()
    assert tried == [10, 5, *[2] * 5, *[2] * 5]
    with pytest.raises(torch.OutOfMemoryError):
        Halving(least=4).over(run, batch)
