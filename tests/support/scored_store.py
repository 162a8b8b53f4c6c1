"""Stores that hold results without any training: outcomes of test images as they are told, exact on both halves."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from time_ray.core.grid import Cell, Setting
from time_ray.core.outcomes import Bits, Outcomes, Question, accuracies, labelled, packed
from time_ray.core.recipe import Base, Recipe
from time_ray.opened import Opened, open_experiment
from time_ray.store.store import Store

SCORED: dict[str, object] = {
    "name": "scored",
    "init": ["zs", "ft", "ema", "all"],
    "deploy": ["ft", "ema", "all"],
    "technique": ["average", "ties"],
    "model": "mini-tiny",
    "budget": "2 steps",
    "seed": [0, 1],
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 2},
}
NO_DIGEST = "0" * 64
NO_WEIGHTS = {"digest": NO_DIGEST, "bytes": 0, "payload": f"payloads/00/{NO_DIGEST}/0.safetensors"}
IMAGES = 200  # of every dataset: every other one belongs to the half that is selected on
Percents = Mapping[str, float | tuple[float, float]]  # by dataset; two numbers: on the half that selects, and reports
Scorer = Callable[[Cell, int, float], Percents]  # of a cell after a task, at a length


def record(store: Store, cells: Iterable[Cell], scorer: Scorer) -> None:
    """The cells are finished, with these scores."""

    def outcomes(cell: Cell, task: int, length: float) -> Outcomes:
        return {Question(name): right(percent) for name, percent in scorer(cell, task, length).items()}

    finish(store, cells, outcomes, {})


def finish(
    store: Store,
    cells: Iterable[Cell],
    outcomes: Callable[[Cell, int, float], Outcomes],
    select: Mapping[Question, Bits],
    *,
    with_outcomes: bool = True,
) -> None:
    """The cells are finished, with these outcomes. Where cells share a model, the first of them counts.

    Every other image belongs to the half that is selected on, where `select` does not say it.
    """
    for cell in cells:
        setting = cell.setting
        scored: list[tuple[Recipe, int, float]] = [(setting.base, 0, 1.0)]
        for task, step in enumerate(cell.walk(), start=1):
            store.record("weights", step.expert.key, {**NO_WEIGHTS, "seconds": {"train": 1.0}})
            scored.append((step.deployed, task, 1.0))
        final, last, _ = scored[-1]
        scored += [(recipe, last, length) for length, recipe in cell.at_lengths(final).items()]
        for recipe, task, length in scored:
            if store.entry("scores", setting.scores_key(recipe)) is None:
                _score(store, setting, recipe, outcomes(cell, task, length), select, with_outcomes=with_outcomes)
        store.record("weights", final.key, {**NO_WEIGHTS, "seconds": {}})


def keep_final(store: Store, cells: Iterable[Cell]) -> None:
    """Final weights are in the store, too: a number for each cell, and no model. To be called before the scores."""
    for number, cell in enumerate(cells):
        *_, last = cell.walk()
        store.put(last.deployed.key, {"number": torch.tensor([number])}, {"seconds": {"train": 1.0}})


def experiment(folder: Path, **changes: object) -> Opened:
    """An experiment on a dataset that is learned and one that is held out; nothing of these is drawn."""
    path = folder / "scored.yaml"
    path.write_text(yaml.safe_dump({**SCORED, "storage": str(folder / "runs"), **changes}, sort_keys=False))
    return open_experiment(path)


def right(percent: float | tuple[float, float]) -> np.ndarray[Any, Any]:
    """Outcomes of IMAGES images, of which so many are right, on either half."""
    halves = percent if isinstance(percent, tuple) else (percent, percent)
    return np.repeat(np.arange(IMAGES // 2), 2) < np.resize(np.array(halves), IMAGES)


def _score(
    store: Store,
    setting: Setting,
    recipe: Recipe,
    outcomes: Outcomes,
    select: Mapping[Question, Bits],
    *,
    with_outcomes: bool,
) -> None:
    key = setting.scores_key(recipe)
    about: dict[str, object] = {"accuracy": accuracies(outcomes), "distance": 0.1, "recipe": {}, "seconds": {}}
    if not with_outcomes:
        store.record("scores", key, about)
        return
    arrays: dict[str, Any] = dict(packed(outcomes))
    if isinstance(recipe, Base):
        names = {question.dataset: sorted(_classes(setting, question.dataset)) or ["thing"] for question in outcomes}
        rows = {question: np.arange(len(bits)) for question, bits in outcomes.items()}
        arrays |= packed(
            {question: select.get(question, numbers % 2 == 0) for question, numbers in rows.items()}, "select"
        )
        arrays |= labelled({q: numbers // 2 % len(names[q.dataset]) for q, numbers in rows.items()})
        about["classes"] = names
    store.put_scores(key, arrays, about)


def _classes(setting: Setting, dataset: str) -> set[str]:
    concepts = (concept for training in setting.trainings for concept in training.task.concepts)
    return {concept.classname for concept in concepts if concept.dataset == dataset}
