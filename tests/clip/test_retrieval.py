from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle import MOST, WIDTH, all_knowing, numbered, oracle
from scores import evaluate
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from time_ray.clip import retrieval
from time_ray.core.errors import UserError
from time_ray.core.scoring import Scoring
from time_ray.data.dataset import Dataset

Make = Callable[..., Dataset]
Weights = dict[str, Tensor]
ENTRIES = {f"pairs{rest}" for rest in ("", "/r1")} | {
    f"pairs/r{k}_{side}" for k in (1, 5) for side in ("text_to_image", "image_to_text")
}


def pairs(make_dataset: Make, counts: list[int], name: str = "pairs") -> Dataset:
    """Images with so many captions each."""
    rows = [numbered(number, count) for number, count in enumerate(counts)]
    return make_dataset(name, [], rows, kind="retrieval", classes=(), templates=())


def noisy(count: int, seed: int, noise: float = 1.0) -> Weights:
    """A model that is often wrong."""
    weights = all_knowing(count)
    errors = torch.randn(MOST * count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return weights | {"texts": weights["texts"] + noise * errors}


def plainly(weights: Weights, counts: list[int]) -> dict[str, float]:
    """Recall from the matrix of all pairs, sorted."""
    owner = np.repeat(np.arange(len(counts)), counts)
    texts = [MOST * image + number for image, count in enumerate(counts) for number in range(count)]
    similar = (normalize(weights["texts"], dim=-1)[texts] @ normalize(weights["pictures"], dim=-1).T).numpy()
    found = {}
    for k in (1, 5):
        by_text = [owner[t] in np.argsort(-row)[:k] for t, row in enumerate(similar)]
        by_image = [i in owner[np.argsort(-similar[:, i])[:k]] for i in range(len(counts)) if counts[i]]
        both = 100 * np.mean(by_text), 100 * np.mean(by_image)
        found |= {
            f"pairs/r{k}_text_to_image": both[0],
            f"pairs/r{k}_image_to_text": both[1],
            f"pairs/r{k}": sum(both) / 2,
        }
    return {"pairs": found.pop("pairs/r5"), **found}


COUNTS = [1 + number % 5 for number in range(60)]


@pytest.mark.parametrize("chunks", [(1024, 4096), (7, 11)])
def test_recall_is_that_of_a_sorted_matrix(
    make_dataset: Make, monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, int]
):
    monkeypatch.setattr(retrieval, "QUERIES", chunks[0])
    monkeypatch.setattr(retrieval, "CANDIDATES", chunks[1])
    models = [noisy(60, seed, noise) for seed, noise in ((1, 2.0), (2, 4.0))]
    found = evaluate(oracle(60), models, [pairs(make_dataset, COUNTS)], batch_size=13)
    for scores, weights in zip(found, models, strict=True):
        assert scores.keys() == ENTRIES
        assert scores == pytest.approx(plainly(weights, COUNTS))
        assert 0 < scores["pairs/r1"] < scores["pairs"] < 100


def test_an_image_without_captions_is_not_asked_for(make_dataset: Make):
    counts = [2, 0, 3, 1, 0, 1, 1]
    weights = noisy(7, 3, 2.0)
    (found,) = evaluate(oracle(7), [weights], [pairs(make_dataset, counts)])
    assert found == pytest.approx(plainly(weights, counts))
    (found,) = evaluate(oracle(7), [all_knowing(7)], [pairs(make_dataset, counts, "again")])
    assert set(found.values()) == {100.0}


class Watched(TorchDispatchMode):
    """The largest tensor that any operation makes, and all their types."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                self.types.add(tensor.dtype)
        return out


def test_no_matrix_of_all_pairs_and_no_doubles(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retrieval, "QUERIES", 20)
    monkeypatch.setattr(retrieval, "CANDIDATES", 30)
    images, captions = torch.randn(300, 4), torch.randn(900, 4)
    owner = torch.arange(300).repeat_interleave(3)
    with Watched() as watched:
        retrieval.recall_hits(retrieval.Pairs(images, torch.arange(300), captions, owner), [(300, 900)], 0)
    assert watched.largest == captions.numel()
    assert torch.float64 not in watched.types


@pytest.mark.parametrize("subset", [None, 0.1])
def test_who_knows_everything_scores_100_on_a_set_shaped_like_fscoco(make_dataset: Make, subset: float | None):
    """It has no class 0 and lacks others: to shift labels, or to cut images without captions, costs 50 or all."""
    labels = [label for label in range(1, 115) if label not in {7, 80}]
    rows = [numbered(number, 1 + number % 3, labels[number % len(labels)]) for number in range(1777)]
    classes = [f"class {label}" for label in range(115)]
    sketches = make_dataset("fscoco", [], rows, kind="retrieval", classes=classes, templates=())
    weights = all_knowing(1777)
    (found,) = evaluate(oracle(1777), [weights], [sketches], scoring=Scoring(subset=subset), seed=5)
    assert set(found.values()) == {100.0}
    assert [len(sketches.split(name)) for name in ("train", "test")] == [0, 1777]


def test_subsets_are_cut_from_the_whole_each_time(make_dataset: Make):
    rows = [numbered(number, 2, number % 10) for number in range(900)]
    classes = [str(label) for label in range(10)]
    sketches = make_dataset("sketches", [], rows, kind="retrieval", classes=classes, templates=())
    pets = make_dataset("pets", [], rows, classes=classes, templates=("{}",))

    def scores(subset: float | None, seed: int) -> dict[str, float]:
        return evaluate(oracle(900), [noisy(900, 1)], [sketches, pets], scoring=Scoring(subset=subset), seed=seed)[0]

    half, whole = scores(0.5, 0), scores(None, 0)
    assert half != whole
    assert scores(0.5, 1) not in (half, whole)
    assert scores(None, 1) == whole
    assert scores(0.5, 0) == half


def test_who_finds_all_alike_gets_no_more_than_chance(make_dataset: Make):
    weights = all_knowing(60)
    same = weights | {name: torch.ones_like(weights[name]) for name in ("pictures", "texts")}
    broken = weights | {"texts": torch.full((MOST * 60, WIDTH), torch.nan)}
    found = evaluate(oracle(60), [same, broken], [pairs(make_dataset, COUNTS)])
    assert [set(scores.values()) for scores in found] == [{0.0}, {0.0}]


@pytest.mark.parametrize(("twins", "first"), [(1, 100.0), (2, 0.0)])
def test_of_what_is_alike_half_goes_first(make_dataset: Make, twins: int, first: float):
    weights = {name: tensor.clone() for name, tensor in all_knowing(9).items()}
    for table in ("pictures", "texts"):
        weights[table][: (1 + twins) * len(weights[table]) // 9] = weights[table][0]
    (found,) = evaluate(oracle(9), [weights], [pairs(make_dataset, [1] * 9)])
    alike = 100 * (1 + twins) / 9
    assert found["pairs/r1"] == pytest.approx(100 - alike + alike * first / 100)
    assert found["pairs"] == 100


def test_pairs_without_captions_cannot_be_scored(make_dataset: Make):
    with pytest.raises(UserError, match="dataset pairs: no captions, so"):
        evaluate(oracle(3), [all_knowing(3)], [pairs(make_dataset, [0, 0, 0])])
