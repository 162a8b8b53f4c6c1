"""Scores of models on datasets, as accuracies."""

from typing import Any

from time_ray.clip.evaluate import outcomes
from time_ray.core.outcomes import accuracies


def evaluate(*models: Any, **options: Any) -> list[dict[str, float]]:
    """Percent by dataset, of each model: takes what `outcomes` takes."""
    return [accuracies(each) for each in outcomes(*models, **options)]
