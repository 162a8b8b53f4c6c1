"""Orders of concepts that streams are built in: each a pure function of concepts and of what was measured of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from time_ray.core.stream import Concept


def by_dataset(concepts: Sequence[Concept], datasets: Sequence[str]) -> tuple[Concept, ...]:
    """Dataset after dataset, in the order of their names here; within one as before."""
    place = {name: number for number, name in enumerate(datasets)}
    return tuple(sorted(concepts, key=lambda concept: place[concept.dataset]))


def ascending(concepts: Sequence[Concept], values: Mapping[Concept, float]) -> tuple[Concept, ...]:
    """From the lowest value to the highest; equal ones as before."""
    return tuple(sorted(concepts, key=values.__getitem__))


def chained(concepts: Sequence[Concept], vectors: Tensor) -> tuple[Concept, ...]:
    """From the first concept on always the nearest one left; `vectors` [N, D] are unit vectors, one a concept.

    Greedy: N matrix-vector products, and no matrix of all pairs.
    """
    left, numbers = vectors.clone(), torch.arange(len(concepts), device=vectors.device)
    order, nearest = [], 0
    for last in range(len(concepts) - 1, -1, -1):
        order.append(int(numbers[nearest]))
        vector = left[nearest].clone()
        left[nearest], numbers[nearest] = left[last], numbers[last].clone()  # what is left stays side by side
        nearest = int((left[:last] @ vector).argmax()) if last else 0
    return tuple(concepts[number] for number in order)
