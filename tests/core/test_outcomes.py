"""Outcomes: scores follow from them, they are stored as bits, and halves belong to rows by name."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from time_ray.core.outcomes import (
    SIDES,
    Evaluation,
    Question,
    accuracies,
    is_for_selection,
    labelled,
    labels_in,
    packed,
    unpacked,
)

BITS = st.lists(st.booleans(), max_size=40).map(lambda bits: np.array(bits, dtype=bool))
NAMES = st.text(min_size=1, max_size=8)
QUESTIONS = st.builds(Question, NAMES, st.sampled_from(["", *SIDES]))


@given(st.dictionaries(QUESTIONS, BITS))
def test_what_is_packed_is_unpacked(outcomes: dict[Question, np.ndarray]) -> None:
    arrays = packed(outcomes)
    assert sum(array.nbytes for array in arrays.values()) == sum(-(-len(bits) // 8) for bits in outcomes.values())
    found = unpacked({**arrays, **packed(outcomes, "select"), **labelled(dict.fromkeys(outcomes, np.arange(3)))})
    assert found.keys() == outcomes.keys()
    assert all((found[question] == bits).all() for question, bits in outcomes.items())


@given(st.dictionaries(QUESTIONS, st.lists(st.integers(-1, 20_000)).map(lambda some: np.array(some, dtype=np.int64))))
def test_labels_are_kept_beside_bits(labels: dict[Question, np.ndarray]) -> None:
    found = labels_in({**labelled(labels), **packed({Question("other"): np.ones(3, dtype=bool)})})
    assert {question: some.tolist() for question, some in found.items()} == {
        question: some.tolist() for question, some in labels.items()
    }


def test_accuracy_is_the_share_of_right_answers() -> None:
    right = np.array([1, 1, 0, 1, 0, 0, 0], dtype=bool)
    assert accuracies({Question("pets"): right}) == {"pets": 100 * 3 / 7}
    assert Evaluation({Question("pets"): right}, 0.1).accuracy == {"pets": 100 * 3 / 7}


def test_retrieval_is_the_mean_of_both_ways() -> None:
    shares = dict(zip(SIDES, (1, 2, 3, 4), strict=True))
    found = accuracies({Question("pairs", side): np.arange(10) < count for side, count in shares.items()})
    assert found == {
        "pairs": 30.0,
        "pairs/r1": 20.0,
        "pairs/r1_text_to_image": 10.0,
        "pairs/r1_image_to_text": 30.0,
        "pairs/r5_text_to_image": 20.0,
        "pairs/r5_image_to_text": 40.0,
    }


def test_a_question_asked_of_nothing_has_no_score() -> None:
    nothing = np.zeros(0, dtype=bool)
    outcomes = {Question("pairs", side): nothing if side == SIDES[0] else np.ones(2, dtype=bool) for side in SIDES}
    assert accuracies({Question("pets"): nothing, **outcomes}) == {}


def test_halves_are_halves_and_belong_to_names() -> None:
    keys = [f"{number}.png" for number in range(2000)]
    select = [is_for_selection("pets", key) for key in keys]
    assert 900 < sum(select) < 1100
    assert [is_for_selection("pets", key) for key in reversed(keys)] == select[::-1]
    assert [is_for_selection("cars", key) for key in keys] != select
