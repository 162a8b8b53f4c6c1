"""Building streams: the classes of an experiment's data in an order that says something."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from time_ray.clip import models
from time_ray.clip.concepts import accuracies, class_vectors, frequencies, trained_concepts
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.order import ascending, by_dataset, chained
from time_ray.core.stream import Concept, Order, random_order
from time_ray.data.dataset import Data
from time_ray.data.sources import prepare
from time_ray.data.stream_file import write_stream
from time_ray.study import Datasets
from time_ray.version import provenance

Say = Callable[[str], None]


class Built(NamedTuple):
    """A stream, and how many classes of the data have no training images and are not in it."""

    concepts: tuple[Concept, ...]
    left_out: int


def build(experiment: Experiment, datasets: Datasets, order: Order, *, seed: int, reverse: bool, say: Say) -> Built:
    """All classes with training images in that order; where it leaves two as they are, the seed decides.

    `datasets`: one dataset after the other, as the experiment names them. `similarity`: from a class that the seed
    chooses always to the nearest one left, by the base's text vectors. `performance`: from what the base knows best
    (zero-shot, on test images) to what it knows worst. `frequency`: from what the fewest captions of the pretraining
    pool name to what the most do. The base is that of the experiment's first model.
    """
    prepare(datasets.all, say)
    data = datasets.open()
    concepts = random_order(trained_concepts(data.adaptation), seed)
    arranged = _arranged(experiment, data, order, concepts, say)
    return Built(
        arranged[::-1] if reverse else arranged, sum(len(d.card.classes) for d in data.adaptation) - len(concepts)
    )


def write(path: Path, built: Built, about: dict[str, Any]) -> None:
    """The stream lies at the path, and beside it how it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_stream(path, built.concepts)
    made = {**about, "classes": len(built.concepts), "left_out": built.left_out, "made_by": provenance()}
    path.with_suffix(".recipe.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def _arranged(
    experiment: Experiment, data: Data, order: Order, concepts: tuple[Concept, ...], say: Say
) -> tuple[Concept, ...]:
    if order == "random":
        return concepts
    if order == "datasets":
        return by_dataset(concepts, [dataset.card.name for dataset in data.adaptation])
    if order == "frequency":
        if data.pretraining is None:
            raise UserError(
                "data.pretraining: frequency is counted in the captions of a pool, and none is given; name one"
            )
        say("counting captions")
        return ascending(concepts, frequencies(data.pretraining, concepts))
    spec = experiment.model[0]
    say(f"asking {spec.label}")
    clip, weights = models.create(spec), models.base_weights(spec)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if order == "performance":
        known = accuracies(clip, weights, data.adaptation, device)
        return ascending(concepts, {concept: -share for concept, share in known.items()})
    vectors = class_vectors(clip, weights, data.adaptation, device)
    return chained(concepts, torch.stack([vectors[concept] for concept in concepts]).to(device))
