"""Datasets as inputs of runs: what a cell learns from and what it is tested on, each with its digest."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from time_ray.core.secrets import hidden
from time_ray.data.sources import DatasetRef
from time_ray.study import Datasets
from time_ray.tracking.names import within

_NAME = 500  # characters
_DIGEST = 32  # hex digits; MLflow takes 36
_SOURCE_TYPE = "time_ray"


def dataset_inputs(datasets: Datasets) -> list[Any]:
    """Every dataset with the part that it plays: `adaptation`, `retention`, or the pool's, `pretraining`."""
    pool = (datasets.pretraining,) if datasets.pretraining else ()
    return [
        *_of("adaptation", datasets.adaptation),
        *_of("retention", datasets.evaluation),
        *_of("pretraining", pool),
    ]


def _of(role: str, sources: Sequence[DatasetRef]) -> list[Any]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = []
    for source in sources:
        profile = {"classes": len(source.classes), "test_images": source.num_scored, "key": source.key}
        dataset = Dataset(
            name=within(source.name, _NAME),
            digest=hashlib.sha256(source.key.encode()).hexdigest()[:_DIGEST],
            source_type=_SOURCE_TYPE,
            source=json.dumps({"folder": hidden(source.folder)}),
            profile=json.dumps(profile),
        )
        found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", role)]))
    return found
