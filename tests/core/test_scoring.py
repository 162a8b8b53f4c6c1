"""The subset rule by the benchmark's numbers, and what of the scoring is identity."""

import pytest
from toy_grid import setting

from time_ray.core.scoring import Scoring, subset_size

# test images and classes of the benchmark's 61 classification datasets and of FSCOCO, from its published tables
ADAPTATION = (
    (681, 15), (11883, 1870), (7977, 500), (10000, 100), (13983, 217), (1475, 25), (21100, 211), (5794, 200),
    (3637, 179), (4103, 1701), (14604, 345), (15582, 345), (21850, 344), (20916, 345), (25000, 27), (1880, 47),
    (3333, 100), (1020, 102), (9200, 92), (25000, 2500), (562, 7), (10751, 1959), (8737, 227), (726, 15), (345, 88),
    (10000, 313), (4238, 74), (4758, 84), (8593, 589), (3800, 38), (36499, 365), (10681, 38), (23966, 157), (6300, 45),
    (25000, 864), (14117, 1599), (19850, 397), (13886, 106), (20000, 200), (9458, 1847), (1777, 115),
)  # fmt: skip
HELD_OUT = (
    (2651, 101), (9300, 257), (8041, 196), (10000, 10), (25875, 345), (8100, 10), (10000, 10), (25250, 101), (8005, 43),
    (50000, 1000), (7500, 200), (4835, 113), (30000, 200), (50889, 1000), (10000, 1000), (10000, 10), (272, 10),
    (3669, 37), (8000, 10), (26032, 10),
)  # fmt: skip
RETRIEVAL = 5000 + 1000  # MSCOCO and Flickr30k have one target an image, so they are scored whole


def test_a_tenth_of_the_benchmark_is_what_it_says() -> None:
    """Cutting a subset again would leave 57,916: the benchmark's own code does that from its second evaluation on."""
    assert sum(rows for rows, _ in (*ADAPTATION, *HELD_OUT)) + RETRIEVAL == 767_481
    sizes = [subset_size(rows, classes, 0.1) for rows, classes in (*ADAPTATION, *HELD_OUT)]
    assert sum(sizes) + RETRIEVAL == 100_912
    cut_twice = [
        subset_size(size, classes, 0.1) for size, (_, classes) in zip(sizes, (*ADAPTATION, *HELD_OUT), strict=True)
    ]
    assert sum(cut_twice) + RETRIEVAL == 57_916


@pytest.mark.parametrize(
    ("rows", "classes", "share", "size"),
    [
        (50_000, 1000, 0.1, 5000),
        (9458, 1847, 0.1, 3694),
        (681, 15, 0.1, 300),
        (272, 10, 0.1, 272),
        (300, 400, 0.5, 300),
    ],
)
def test_a_subset_keeps_two_a_class_and_three_hundred(rows: int, classes: int, share: float, size: int) -> None:
    assert subset_size(rows, classes, share) == size


def test_the_scoring_is_part_of_the_names_of_scores() -> None:
    plain, other_seed = (setting(2, seed=seed) for seed in (0, 1))
    assert plain.evaluation_key == other_seed.evaluation_key
    ways = [
        Scoring(),
        Scoring(subset=0.1),
        Scoring(subset=0.2),
        Scoring(templates=("a {}.",)),
        Scoring(templates=("{}",)),
    ]
    keys = [setting(2, scoring=way).evaluation_key for way in ways]
    assert keys[0] == plain.evaluation_key
    assert len(set(keys)) == len(ways)


def test_a_subset_is_one_of_a_seed() -> None:
    """So its scores are never taken for those of another seed."""
    tenth = Scoring(subset=0.1)
    assert setting(2, seed=0, scoring=tenth).evaluation_key != setting(2, seed=1, scoring=tenth).evaluation_key


def test_prompts_are_used_as_written() -> None:
    assert Scoring.model_validate({"templates": "a {}."}) == Scoring(templates=("a {}.",))
    with pytest.raises(ValueError, match="must name the class"):
        Scoring(templates=("a {} on a {}",))
