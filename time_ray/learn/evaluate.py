"""Evaluation: zero-shot accuracy on the test split of each dataset."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import normalize

from time_ray.core.errors import UserError
from time_ray.learn.dataset import Card, Dataset
from time_ray.learn.features import image_features, text_features
from time_ray.learn.images import Decoded
from time_ray.learn.models import Clip


def evaluate(
    clip: Clip,
    weights: Mapping[str, Tensor],
    datasets: Sequence[Dataset],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    shard: tuple[int, int] = (0, 1),
) -> dict[str, float]:
    """Top-1 accuracy in percent on the split "test" of each dataset, over all of its classes, by dataset name.

    A class is the mean of its prompts' unit vectors, one prompt for each template. With `shard` = (rank, workers)
    each worker scores its part of every test split, and torch.distributed sums them: all get the whole result.
    Raises UserError for datasets that have no test split or no classes.
    """
    UserError.unless_none(fault for dataset in datasets for fault in _faults(dataset.card))
    clip.load(weights, device).eval()
    with torch.inference_mode():
        heads = _class_heads(clip, [dataset.card for dataset in datasets], batch_size)
        correct = torch.stack(
            [
                _correct(clip, head, dataset, batch_size=batch_size, shard=shard)
                for head, dataset in zip(heads, datasets, strict=True)
            ]
        )
        if shard[1] > 1:
            dist.all_reduce(correct)
    return {
        dataset.card.name: 100 * hits / dataset.card.splits["test"].rows
        for dataset, hits in zip(datasets, correct.tolist(), strict=True)
    }


def _faults(card: Card) -> Sequence[str]:
    if not card.splits.get("test") or not card.splits["test"].rows:
        return [f"dataset {card.name}: no test images, so it cannot be evaluated; leave it out or import it with some"]
    if not card.classes or not card.templates:
        return [f"dataset {card.name}: no classes with templates, so it has no accuracy; leave it out of evaluation"]
    return []


def _class_heads(clip: Clip, cards: Sequence[Card], batch_size: int) -> list[Tensor]:
    """For each dataset the unit vectors of its classes [C, D]; all datasets' prompts go through together."""
    prompts = [template.format(name) for card in cards for name in card.classes for template in card.templates]
    chunks = torch.split(clip.tokenize(prompts), batch_size)
    vectors = torch.cat([text_features(clip, chunk) for chunk in chunks])
    parts = torch.split(vectors, [len(card.classes) * len(card.templates) for card in cards])
    return [
        normalize(part.view(len(card.classes), len(card.templates), -1).mean(dim=1), dim=-1)
        for card, part in zip(cards, parts, strict=True)
    ]


def _correct(clip: Clip, head: Tensor, dataset: Dataset, *, batch_size: int, shard: tuple[int, int]) -> Tensor:
    """How many images of this worker's part of the test split are nearest to their own class."""
    split = dataset.split("test")
    images = Decoded(split, clip.image_size)
    start, stop = (len(split) * edge // shard[1] for edge in (shard[0], shard[0] + 1))
    correct = torch.zeros((), dtype=torch.int64, device=head.device)
    for first in range(start, stop, batch_size):
        last = min(first + batch_size, stop)
        pixels = torch.from_numpy(images.block(first, last)).to(head.device)
        labels = torch.tensor(split.labels[first:last]).to(head.device)
        correct += ((image_features(clip, pixels) @ head.T).argmax(dim=1) == labels).sum()
    return correct
