from collections.abc import Callable

import pytest
import torch
from pictures import CLASSES, picture, rows
from scores import evaluate
from torch import Tensor

from time_ray.clip.concepts import accuracies, class_vectors, frequencies, trained_concepts
from time_ray.clip.models import Clip
from time_ray.core.stream import Concept
from time_ray.data.dataset import Dataset, Row

Make = Callable[..., Dataset]
Weights = dict[str, Tensor]


def test_classes_without_training_images_are_no_concepts(make_dataset: Make):
    train = [Row(picture(0), ("x",), 2, ""), Row(picture(1), ("x",), 0, ""), Row(picture(2), ("x",), -1, "")]
    assert trained_concepts([make_dataset("pets", train, rows(3))]) == (Concept("pets", "cat"), Concept("pets", "owl"))


def test_accuracies_of_classes_make_up_the_dataset_s(clip: Clip, weights: Weights, make_dataset: Make):
    dataset = make_dataset("pets", [], rows(41))
    found = accuracies(clip, weights, [dataset], "cpu", batch_size=7)
    assert list(found) == [Concept("pets", name) for name in CLASSES]
    sizes = [len(dataset.split("test").rows_of(label)) for label in range(len(CLASSES))]
    mean = sum(size * share for size, share in zip(sizes, found.values(), strict=True)) / sum(sizes)
    assert evaluate(clip, [weights], [dataset]) == [{"pets": pytest.approx(100 * mean)}]
    assert 0 < mean < 1


def test_a_class_without_test_images_is_known_to_none(clip: Clip, weights: Weights, make_dataset: Make):
    test = [row for row in rows(9) if row.label != 1]
    assert accuracies(clip, weights, [make_dataset("pets", [], test)], "cpu")[Concept("pets", "dog")] == 0


def test_meanings_are_unit_vectors_of_the_prompts(clip: Clip, weights: Weights, make_dataset: Make):
    with_prompts, bare = make_dataset("pets", []), make_dataset("bare", [], templates=())
    found = class_vectors(clip, weights, [with_prompts, bare], "cpu")
    module = clip.load(weights).eval()
    with torch.no_grad():
        asked = module.encode_text(clip.tokenize(["a dog.", "the dog.", "dog"]), normalize=True)
    mean = torch.nn.functional.normalize(asked[:2].sum(dim=0), dim=-1)
    torch.testing.assert_close(found[Concept("pets", "dog")], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[Concept("bare", "dog")], asked[2], rtol=1e-4, atol=1e-5)


def test_captions_that_name_a_class_are_counted(make_dataset: Make):
    captions = [
        ("An OWL, an owl!", "a dog"),
        ("catalogue of dogs",),
        ("the snow-owl",),
        ("snow. Owl",),
        ("grey_cat",),
        (),
        ("snow",),
    ]
    train = [Row(picture(i), texts, -1, "") for i, texts in enumerate(captions)]
    pool = make_dataset("pool", train, kind="captions", classes=(), templates=())
    names = ("owl", "snow owl", "cat", "Dog", "never", "?", "snow")
    counts = frequencies(pool, [Concept("a", name) for name in names] + [Concept("b", "cat")])
    assert counts == {
        **{Concept("a", n): c for n, c in zip(names, (3, 2, 1, 1, 0, 0, 3), strict=True)},
        Concept("b", "cat"): 1,
    }
