"""What a dataset's test images are asked, and what is known of each image that is: its half, and its class."""

from typing import NamedTuple

import numpy as np

from time_ray.core.outcomes import DIRECTIONS, SIDES, Bits, Question, Rows, is_for_selection
from time_ray.data.dataset import Dataset


class Asked(NamedTuple):
    """The images that a question is about, in the order of its outcomes."""

    select: Bits  # belongs to the half on which a winner is selected
    labels: Rows  # its class, by number; -1 for none


def questions(dataset: Dataset, rows: Rows) -> dict[Question, Rows]:
    """What is asked of these rows of the test split: for every outcome the row that it is about.

    A caption is about its image's row. An image without a caption is not asked for one.
    """
    name = dataset.card.name
    if dataset.card.kind != "retrieval":
        return {Question(name): rows}
    counts = np.array([len(captions) for captions in dataset.split("test").captions(rows)], dtype=np.int64)
    about = dict(zip(DIRECTIONS, (np.repeat(rows, counts), rows[counts > 0]), strict=True))
    return {Question(name, side): about[side.partition("_")[2]] for side in SIDES}


def asked(dataset: Dataset, rows: Rows) -> dict[Question, Asked]:
    """What is known of the images of every question."""
    split, name = dataset.split("test"), dataset.card.name
    select = np.zeros(len(split), dtype=bool)
    select[rows] = [is_for_selection(name, key) for key in split.keys(rows)]
    labels = split.labels.astype(np.int64)
    return {question: Asked(select[some], labels[some]) for question, some in questions(dataset, rows).items()}
