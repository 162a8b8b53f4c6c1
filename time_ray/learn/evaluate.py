"""Evaluation: zero-shot accuracy of several models on the test split of each dataset, in one pass over the images."""

from collections.abc import Iterator, Mapping, Sequence

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
    models: Sequence[Mapping[str, Tensor]],
    datasets: Sequence[Dataset],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    shard: tuple[int, int] = (0, 1),
) -> list[dict[str, float]]:
    """For each model its top-1 accuracy in percent on the split "test" of each dataset, over all of its classes.

    A model's scores do not depend on those beside it. A class is the mean of its prompts' unit vectors, one prompt
    for each template. With `shard` = (rank, workers) each worker scores its part of every test split, and
    torch.distributed sums them: all get the whole result.
    Raises UserError for datasets that have no test split or no classes.
    """
    UserError.unless_none(fault for dataset in datasets for fault in _faults(dataset.card))
    clips = [clip.holding(weights, device) for weights in models]
    with torch.inference_mode():
        heads = _class_heads(clips, [dataset.card for dataset in datasets], batch_size)
        correct = torch.stack(
            [
                _correct(clips, head, dataset, batch_size=batch_size, shard=shard)
                for head, dataset in zip(heads, datasets, strict=True)
            ]
        )
        if shard[1] > 1:
            dist.all_reduce(correct)
    return [
        {
            dataset.card.name: 100 * count / dataset.card.splits["test"].rows
            for dataset, count in zip(datasets, hits, strict=True)
        }
        for hits in correct.T.tolist()
    ]


def _faults(card: Card) -> Sequence[str]:
    if not card.splits.get("test") or not card.splits["test"].rows:
        return [f"dataset {card.name}: no test images, so it cannot be evaluated; leave it out or import it with some"]
    if not card.classes or not card.templates:
        return [f"dataset {card.name}: no classes with templates, so it has no accuracy; leave it out of evaluation"]
    return []


def _class_heads(clips: Sequence[Clip], cards: Sequence[Card], batch_size: int) -> Iterator[list[Tensor]]:
    """For each dataset, for each model, the unit vectors of its classes [C, D]; prompts of all go through together."""
    prompts = [template.format(name) for card in cards for name in card.classes for template in card.templates]
    vectors = [_texts(clip, prompts, batch_size) for clip in clips]
    first = 0
    for card in cards:
        stop = first + len(card.classes) * len(card.templates)
        shape = (len(card.classes), len(card.templates), -1)
        yield [normalize(part[first:stop].view(shape).mean(dim=1), dim=-1) for part in vectors]
        first = stop


def _texts(clip: Clip, texts: Sequence[str], batch_size: int) -> Tensor:
    chunks = (clip.tokenize(texts[first : first + batch_size]) for first in range(0, len(texts), batch_size))
    return torch.cat([text_features(clip, chunk) for chunk in chunks])


def _correct(
    clips: Sequence[Clip], heads: Sequence[Tensor], dataset: Dataset, *, batch_size: int, shard: tuple[int, int]
) -> Tensor:
    """For each model, how many images of this worker's part of the test split are nearest to their own class."""
    split = dataset.split("test")
    images = Decoded(split, clips[0].image_size)
    device = heads[0].device
    start, stop = (len(split) * edge // shard[1] for edge in (shard[0], shard[0] + 1))
    correct = torch.zeros(len(clips), dtype=torch.int64, device=device)
    for first in range(start, stop, batch_size):
        last = min(first + batch_size, stop)
        pixels = torch.from_numpy(images.block(first, last)).to(device)
        labels = torch.tensor(split.labels[first:last]).to(device)
        for number, (clip, head) in enumerate(zip(clips, heads, strict=True)):
            correct[number] += ((image_features(clip, pixels) @ head.T).argmax(dim=1) == labels).sum()
    return correct
