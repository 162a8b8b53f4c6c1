"""The part of a test split that scores are measured on: chosen anew each time, so the dataset itself never changes."""

import numpy as np
from numpy.typing import NDArray

from time_ray.core.scoring import Scoring, subset_size
from time_ray.data.dataset import Card, Split
from time_ray.data.randomness import Randomness

PROMPTS = "class prompts"


def lacks(card: Card, scoring: Scoring) -> str:
    """What the dataset would need to be scored like that; empty if it has it all."""
    if "test" not in card.splits or not card.splits["test"].rows:
        return "test images"
    if card.kind == "retrieval":
        return ""
    if not card.classes:
        return "classes"
    return "" if card.templates or scoring.templates else PROMPTS


def scored_rows(card: Card, split: Split, share: float | None, seed: int) -> NDArray[np.int64]:
    """The rows of the split that are scored, in order: equally many of each class, the rest from all others.

    They depend on the dataset's name, the share and the seed alone. A dataset without classes is scored whole.
    """
    everything = np.arange(len(split), dtype=np.int64)
    if share is None or not card.classes:
        return everything
    size = subset_size(len(split), len(card.classes), share)
    randomness = Randomness(seed, 0, f"subset {card.name}")
    chosen = np.zeros(len(split), dtype=bool)
    for label in range(len(card.classes)):
        rows = split.rows_of(label)
        chosen[rows[randomness.shuffle(label, len(rows))][: size // len(card.classes)]] = True
    others = np.flatnonzero(~chosen)
    rest = randomness.shuffle(len(card.classes), len(others))[: size - int(chosen.sum())]
    chosen[others[rest]] = True
    return everything[chosen]
