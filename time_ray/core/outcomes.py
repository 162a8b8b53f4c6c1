"""Outcomes: of every test image, or caption, whether a model had it right. All scores follow from them.

A dataset asks one question of each image (is the nearest class its own?); a retrieval set asks four: whether a caption
finds its image, and an image one of its captions, among the first one or five.
"""

import hashlib
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (1, 5)
DIRECTIONS = ("text_to_image", "image_to_text")
SIDES = tuple(f"r{cutoff}_{direction}" for direction in DIRECTIONS for cutoff in CUTOFFS)
SCORED_SIDES = tuple(f"r{CUTOFFS[-1]}_{direction}" for direction in DIRECTIONS)  # a retrieval set's score is their mean

Bits = NDArray[np.bool_]
Rows = NDArray[np.int64]


class Question(NamedTuple):
    """What is asked of a dataset's images or captions, one after the other."""

    dataset: str
    side: str = ""  # of a retrieval set: one of SIDES


Outcomes = Mapping[Question, Bits]


class Evaluation(NamedTuple):
    """What was measured of a model: its outcomes, and how far it is from the base."""

    outcomes: Outcomes
    distance: float  # ||weights - base|| / ||base||

    @property
    def accuracy(self) -> dict[str, float]:
        """Percent, by dataset."""
        return accuracies(self.outcomes)


def accuracies(outcomes: Outcomes) -> dict[str, float]:
    """Scores in percent, by dataset, in the order of the outcomes.

    Of a retrieval set the mean of both directions' R@5, and under `NAME/r1`, `NAME/r5_text_to_image` and so on what
    else there is. A question that was asked of nothing has no score, nor has its dataset.
    """
    return accuracies_of({question: _percent(bits) for question, bits in outcomes.items() if len(bits)})


def accuracies_of(percents: Mapping[Question, float]) -> dict[str, float]:
    """As `accuracies`, from the percentage of each question's outcomes that are right; also of arrays of them."""
    scores: dict[str, float] = {}
    for question, percent in percents.items():
        if not question.side:
            scores[question.dataset] = percent
        elif question.side == SIDES[-1]:
            scores |= _recalls(question.dataset, percents)
    return scores


def _recalls(name: str, percents: Mapping[Question, float]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for cutoff in CUTOFFS:
        sides = {f"r{cutoff}_{direction}": Question(name, f"r{cutoff}_{direction}") for direction in DIRECTIONS}
        if any(question not in percents for question in sides.values()):
            return {}
        scores[f"{name}/r{cutoff}"] = sum(percents[question] for question in sides.values()) / 2
        scores |= {f"{name}/{side}": percents[question] for side, question in sides.items()}
    return {name: scores.pop(f"{name}/r{CUTOFFS[-1]}"), **scores}


def _percent(bits: Bits) -> float:
    return 100 * int(bits.sum()) / len(bits)


def is_for_selection(dataset: str, key: str) -> bool:
    """Whether an image belongs to the half on which a winner is selected; on the other half it is reported.

    It depends on the names of the dataset and of the row alone, not on where the row stands.
    """
    return hashlib.sha256(f"{dataset}\x1f{key}".encode(errors="surrogatepass")).digest()[0] < 128  # the first bit is 0


def packed(outcomes: Outcomes, prefix: str = "right") -> dict[str, NDArray[np.uint8]]:
    """One bit an outcome, eight in a byte; names say how many there are, and of which question."""
    return {
        f"{prefix}/{len(bits)}/{question.side}/{question.dataset}": np.packbits(bits)
        for question, bits in outcomes.items()
    }


def unpacked(arrays: Mapping[str, NDArray[np.uint8]], prefix: str = "right") -> dict[Question, Bits]:
    """What `packed` was given, in the order of names: files have none."""
    found: dict[Question, Bits] = {}
    for name, array in sorted(arrays.items(), key=itemgetter(0)):
        what, count, side, dataset = name.split("/", 3)
        if what == prefix:
            found[Question(dataset, side)] = np.unpackbits(array, count=int(count)).astype(bool)
    return found


def labelled(labels: Mapping[Question, Rows]) -> dict[str, NDArray[np.int32]]:
    """The class of each image that is asked, by names as in `packed`."""
    return {
        f"label/{len(numbers)}/{question.side}/{question.dataset}": numbers.astype(np.int32)
        for question, numbers in labels.items()
    }


def labels_in(arrays: Mapping[str, NDArray[np.int32]]) -> dict[Question, Rows]:
    """What `labelled` was given, in the order of names."""
    found: dict[Question, Rows] = {}
    for name, array in sorted(arrays.items(), key=itemgetter(0)):
        what, _, side, dataset = name.split("/", 3)
        if what == "label":
            found[Question(dataset, side)] = array.astype(np.int64)
    return found
