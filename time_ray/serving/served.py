"""What is served: the weights that a cell ends with, the classes that they were taught, and what speaks for them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from time_ray.analysis.final_weights import FinalWeights
from time_ray.core.model import ModelSpec
from time_ray.core.stream import Concept
from time_ray.results import CellResult, TaskResult
from time_ray.study import Datasets


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model as others get it.

    Attributes:
        result: the cell that serves it.
        weights: its bytes, at the length.
        datasets: those of the experiment, with their classes and class prompts.
        length: 1 for what the cell serves.
        support: what speaks for it, by name, if it was chosen as the best; see `support`.

    """

    result: CellResult
    weights: FinalWeights
    datasets: Datasets
    length: float = 1.0
    support: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> ModelSpec:
        """The architecture, the base weights and the preprocessing."""
        return self.result.cell.setting.model

    @property
    def scored(self) -> TaskResult:
        """What it scores after the last task."""
        return self.result.rows[-1] if self.length == 1 else self.result.at_lengths[self.length]

    @property
    def taught(self) -> tuple[Concept, ...]:
        """The classes of the stream, in its order."""
        trainings = self.result.cell.setting.trainings
        return tuple(dict.fromkeys(concept for training in trainings for concept in training.task.concepts))

    @property
    def classes(self) -> dict[str, Any]:
        """`classes.json` of `predictor.py`: what was taught, and every dataset's classes with the prompts they get."""
        prompts = self.result.cell.setting.scoring.templates
        return {
            "taught": [list(concept) for concept in self.taught],
            "datasets": {
                one.name: {"classes": list(one.classes), "templates": list(prompts or one.templates)}
                for one in (*self.datasets.adaptation, *self.datasets.evaluation)
                if one.classes
            },
        }

    @property
    def recipe(self) -> str:
        """How it was made, as JSON: its place on every axis, and the recipe of its weights."""
        return json.dumps({**self.result.cell.axes, "length": self.length, **self.weights.about}, indent=1)

    @property
    def scores(self) -> dict[str, Any]:
        """What it scores after the last task, and what speaks for it if it was chosen."""
        scored = self.scored
        accuracy = dict(scored.accuracy)
        return {"task": scored.task, "scores": dict(scored.scores), "accuracy": accuracy, "support": dict(self.support)}

    @property
    def columns(self) -> list[str]:
        """What `predictor.py` calls the probabilities of the classes that were taught."""
        count = Counter(concept.classname for concept in self.taught)
        return [
            concept.classname if count[concept.classname] == 1 else f"{concept.dataset}: {concept.classname}"
            for concept in self.taught
        ]
