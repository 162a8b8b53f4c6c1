from collections import Counter
from collections.abc import Callable

import numpy as np
from pictures import picture

from time_ray.data.dataset import Dataset, Row
from time_ray.data.subset import scored_rows

Make = Callable[..., Dataset]
SHARED = picture(0, (1, 1))


def test_a_subset_has_equally_many_of_each_class(make_dataset: Make):
    labels = [0] * 900 + [1] * 400 + [2] * 60
    pets = make_dataset("pets", [], [Row(SHARED, ("text",), label, "") for label in labels])
    split = pets.split("test")
    rows = scored_rows(pets.card, split, 0.25, seed=0)
    assert len(rows) == len(set(rows)) == 340
    assert list(rows) == sorted(rows)
    counts = Counter(split.labels[rows].tolist())
    assert counts[2] == 60  # all there are; a third of 340 would be 113
    assert 113 <= counts[1] < counts[0]  # the rest is filled at random
    assert np.array_equal(rows, scored_rows(pets.card, split, 0.25, seed=0))
    assert not np.array_equal(rows, scored_rows(pets.card, split, 0.25, seed=1))
    assert len(split) == 1360
    assert len(scored_rows(pets.card, split, None, seed=0)) == 1360


def test_classes_without_images_and_images_without_a_class_do_no_harm(make_dataset: Make):
    rows = [Row(SHARED, ("text",), label, "") for label in [-1] * 400 + [1, 2] * 150]
    pets = make_dataset("pets", [], rows)
    chosen = scored_rows(pets.card, pets.split("test"), 0.1, seed=3)
    assert len(chosen) == 300
    assert sum(pets.split("test").labels[chosen] > 0) >= 200


def test_without_classes_all_is_scored(make_dataset: Make):
    pairs = make_dataset("pairs", [], [Row(SHARED, ("text",), -1, "")] * 500, kind="captions", classes=(), templates=())
    assert len(scored_rows(pairs.card, pairs.split("test"), 0.1, seed=0)) == 500
