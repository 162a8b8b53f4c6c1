"""Orders that streams are built in."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.order import ascending, by_dataset, chained
from time_ray.core.stream import Concept

CONCEPTS = [Concept("b", "1"), Concept("a", "1"), Concept("b", "2"), Concept("a", "2"), Concept("c", "1")]


def test_datasets_follow_each_other_and_keep_their_order_inside() -> None:
    assert by_dataset(CONCEPTS, ["c", "b", "a"]) == tuple(CONCEPTS[i] for i in (4, 0, 2, 1, 3))


def test_low_values_come_first_and_equal_ones_keep_their_order() -> None:
    values = dict(zip(CONCEPTS, [2.0, 1.0, 1.0, 3.0, 1.0], strict=True))
    assert ascending(CONCEPTS, values) == tuple(CONCEPTS[i] for i in (1, 2, 4, 0, 3))


@given(st.integers(1, 40), st.integers(0, 3))
def test_a_chain_always_goes_to_the_nearest_one_left(count: int, seed: int) -> None:
    concepts = [Concept("a", str(i)) for i in range(count)]
    vectors = torch.nn.functional.normalize(torch.randn(count, 4, generator=torch.manual_seed(seed)), dim=1)
    chain = [int(concept.classname) for concept in chained(concepts, vectors)]
    assert sorted(chain) == list(range(count))
    assert chain[0] == 0
    for place, (here, there) in enumerate(pairwise(chain)):
        best = max(float(vectors[here] @ vectors[other]) for other in chain[place + 1 :])
        assert float(vectors[here] @ vectors[there]) >= best - 1e-6


def test_a_chain_changes_nothing_it_is_given() -> None:
    vectors = torch.eye(5)
    chained(CONCEPTS, vectors)
    assert torch.equal(vectors, torch.eye(5))
