"""What can be measured of concepts before anything is learned: what they mean, how well known and how rare they are."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from time_ray.clip.features import image_features, text_features
from time_ray.clip.models import Clip
from time_ray.core.stream import Concept
from time_ray.data.dataset import Card, Dataset
from time_ray.data.images import Decoded

_WORD = re.compile(r"[^\W_]+")
_CAPTIONS = 4096  # rows of a pool whose captions are read at a time


def trained_concepts(datasets: Sequence[Dataset]) -> tuple[Concept, ...]:
    """The classes that have training images."""
    return tuple(
        Concept(dataset.card.name, classname)
        for dataset in datasets
        for classname, rows in zip(dataset.card.classes, _class_sizes(dataset, "train"), strict=True)
        if rows
    )


def class_vectors(
    clip: Clip, weights: Mapping[str, Tensor], datasets: Sequence[Dataset], device: str
) -> dict[Concept, Tensor]:
    """The unit vector [D] of each class: of its prompts, by these weights."""
    held = clip.holding(weights, device)
    with torch.inference_mode():
        heads = [(dataset.card, _head(held, dataset.card).cpu()) for dataset in datasets]
    return {
        Concept(card.name, classname): vector
        for card, head in heads
        for classname, vector in zip(card.classes, head, strict=True)
    }


def accuracies(
    clip: Clip, weights: Mapping[str, Tensor], datasets: Sequence[Dataset], device: str, *, batch_size: int = 256
) -> dict[Concept, float]:
    """The share of each class's test images that are nearest to their own class of the dataset; 0 where it has none."""
    held = clip.holding(weights, device)
    found: dict[Concept, float] = {}
    for dataset in datasets:
        card, split = dataset.card, dataset.split("test")
        images, hits = Decoded(split, held.preprocessing.resizing), np.zeros(len(card.classes), dtype=np.int64)
        with torch.inference_mode():
            head = _head(held, card)
            for first in range(0, len(split), batch_size):
                rows = np.arange(first, min(first + batch_size, len(split)))
                pixels, labels = torch.from_numpy(images.block(rows)).to(device), split.labels[rows]
                nearest = (image_features(held, pixels) @ head.T).argmax(dim=1).cpu().numpy()
                hits += np.bincount(labels[nearest == labels], minlength=len(hits))
        shares = hits / np.maximum(_class_sizes(dataset, "test"), 1)
        found.update((Concept(card.name, name), float(s)) for name, s in zip(card.classes, shares, strict=True))
    return found


def frequencies(pool: Dataset, concepts: Sequence[Concept]) -> dict[Concept, int]:
    """How many captions of the pool name each class: its words in a row, whatever their case."""
    trie: dict[str, Any] = {}
    for concept in concepts:
        node = trie
        for word in _words(concept.classname):
            node = node.setdefault(word, {})
        node.setdefault("", []).append(concept)  # no word is empty
    counts = dict.fromkeys(concepts, 0)
    for caption in _captions(pool):
        for concept in set(_named(_words(caption), trie)):
            counts[concept] += 1
    return counts


def _named(words: Sequence[str], trie: Mapping[str, Any]) -> Iterator[Concept]:
    for start in range(len(words)):
        node = trie
        for word in words[start:]:
            if word not in node:
                break
            node = node[word]
            yield from node.get("", ())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _captions(pool: Dataset) -> Iterator[str]:
    split = pool.split("train")
    for first in range(0, len(split), _CAPTIONS):
        for captions in split.captions(range(first, min(first + _CAPTIONS, len(split)))):
            yield from captions


def _class_sizes(dataset: Dataset, split: str) -> list[int]:
    labels = dataset.split(split).labels
    return np.bincount(labels[labels >= 0], minlength=len(dataset.card.classes)).tolist()  # type: ignore[no-any-return]


def _head(clip: Clip, card: Card, batch_size: int = 256) -> Tensor:
    """The unit vectors [C, D] of a dataset's classes; a dataset without prompts is asked by bare names."""
    templates = card.templates or ("{}",)
    prompts = [template.format(name) for name in card.classes for template in templates]
    parts = [prompts[first : first + batch_size] for first in range(0, len(prompts), batch_size)]
    vectors = torch.cat([text_features(clip, clip.tokenize(part)) for part in parts])
    return normalize(vectors.view(len(card.classes), len(templates), -1).sum(dim=1), dim=-1)
