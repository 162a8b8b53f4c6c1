"""Weights of a window: as listed or by a schedule, and the decay of a learning rate after the fact."""

import pytest
import torch
from toy_grid import setting, technique

from time_ray import merging
from time_ray.core.recipe import Experts, Merged, Recipe, Trained
from time_ray.core.strategies import SCHEDULES, All, Window, read
from time_ray.merging import parameters

AVERAGE = technique("average", weighs_experts=True)
TIES = technique("ties", weighted=False, alone=False)
TOYS = setting(5)


def history(num_tasks: int) -> Experts:
    experts = None
    for training in TOYS.trainings[:num_tasks]:
        experts = Experts.add(experts, Trained(TOYS.base, training))
    assert experts is not None
    return experts


def window(num_tasks: int, **parameters: object) -> Recipe:
    strategy = Window.model_validate(parameters)
    return strategy.recipe(TOYS.base, history(num_tasks), AVERAGE)


def weights_in(recipe: Recipe) -> tuple[object, int]:
    """What the merge's technique is told, and how many experts it merges."""
    assert isinstance(recipe, Merged)
    return recipe.technique.params["weights"], recipe.experts.length


def test_schedules_are_those_of_techniques() -> None:
    assert set(SCHEDULES) == set(parameters.SCHEDULES)


def test_weights_go_to_a_technique_that_takes_them() -> None:
    assert weights_in(window(5, size=3, weights=(1.0, 2.0, 4.0))) == ([1.0, 2.0, 4.0], 3)
    assert weights_in(window(5, size=3, weights="linear")) == ("linear", 3)


def test_they_replace_those_of_the_technique() -> None:
    exp = technique("average", weighs_experts=True).with_weights("exp")
    equal = Window(weights=(1.0, 1.0, 1.0)).recipe(TOYS.base, history(5), exp)
    assert equal.key == window(5).key != Window().recipe(TOYS.base, history(5), exp).key


def test_other_techniques_ignore_them() -> None:
    one, other = (strategy.recipe(TOYS.base, history(5), TIES) for strategy in (Window(), Window(weights="exp")))
    assert one.key == other.key


def test_a_short_history_has_the_last_weights() -> None:
    assert weights_in(window(2, size=3, weights=(1.0, 2.0, 4.0))) == ([2.0, 4.0], 2)
    for weights in ("linear", (1.0, 2.0, 4.0)):
        assert window(1, size=3, weights=weights).key == history(1).newest.key


def test_equal_weights_have_the_key_of_a_plain_window() -> None:
    assert window(5, size=3, weights=(0.2, 0.2, 0.2)).key == window(5, size=3).key
    assert window(3, size=3, weights=(0.2, 0.2, 0.2)).key == All().recipe(TOYS.base, history(3), AVERAGE).key
    assert window(5, size=3, weights=(0.0, 1.0, 1.0)).key == window(5, size=2).key


def test_a_list_in_an_experiment_is_read_and_shown() -> None:
    found = read({"name": "window", "size": 2, "weights": [1, 3]})
    assert found == Window(size=2, weights=(1.0, 3.0))
    assert read(found.written()) == found
    assert found.label == "window(size=2,weights=(1.0, 3.0))"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("linaer", "no such schedule 'linaer'; did you mean 'linear'"),
        ([1, 2], "2 weights for a window of size 3; give one for each expert"),
        ([1, 2, 0], "the last of the weights is 0"),
        ([1, -2, 1], "are no weights; give a number of at least 0 for each expert, or a schedule's name"),
        ([1, "2", 1], "are no weights"),
        ([1, float("nan"), 1], "are no weights"),
        (7, "7 are no weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read({"name": "window", "weights": weights})


@pytest.mark.parametrize("curve", ["linear", "cosine", "1 - sqrt"])
def test_differences_of_a_decay_are_the_weights_that_reproduce_it(curve: str) -> None:
    """Constant steps, then their merge: the end of the training whose steps decay (WSM, arXiv:2507.17634, theorem 1).

    A decay w_1 ≥ ... ≥ w_k of steps is reproduced by weights c_j = w_j - w_{j+1} of the models after step j.
    """
    num_steps = 5
    place = torch.arange(1, num_steps + 1, dtype=torch.float64) / (num_steps + 1)
    decay = {"linear": 1 - place, "cosine": (1 + torch.cos(torch.pi * place)) / 2, "1 - sqrt": 1 - place.sqrt()}[curve]
    steps = torch.randn(num_steps, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = torch.ones(7, dtype=torch.float64)
    models = [{"w": start + steps[:number].sum(0)} for number in range(num_steps + 1)]
    ends = torch.cat((torch.ones(1), decay, torch.zeros(1)))
    weights = (ends[:-1] - ends[1:]).tolist()
    merged = merging.merge(models[0], models, "average", weights=weights)
    torch.testing.assert_close(merged["w"], start + (decay[:, None] * steps).sum(0))
    if curve == "linear":
        assert weights == pytest.approx([1 / (num_steps + 1)] * (num_steps + 1))  # so a plain window is a linear decay
