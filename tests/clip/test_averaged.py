"""An expert may be a mean over its own training: of the last snapshots, or of all steps with a decay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_norm
import pytest
import torch
from test_train import Weights, given, made_batches, same
from test_training_checkpoints import Kept, KilledError

from time_ray.clip.models import Clip
from time_ray.clip.train import train
from time_ray.core.training import Training
from time_ray.core.within_average import WithinAverage

STEPS = 6
WAYS: list[Any] = [2, {"last": 3, "every": 2}, {"ema": 0.7}]


def config(average: Any = None, precision: str = "fp32") -> Training:
    return Training.model_validate({"lr": 1e-2, "precision": precision, "average_within": average})


class States(Kept):
    """Hears of the weights after every step, and keeps nothing."""

    def __init__(self) -> None:
        self.weights: list[Weights] = []

    def load(self) -> None:
        return None

    def due(self, _: int) -> bool:
        return True

    def save(self, _: int, state: Callable[[], Any]) -> None:
        found = {name: tensor.clone() for name, tensor in state().items()}
        self.weights.append({name[8:]: tensor for name, tensor in found.items() if name.startswith("weights/")})


def snapshots(clip: Clip, weights: Weights, precision: str) -> list[Weights]:
    """The weights after each step of a training without an average."""
    heard = States()
    end = train(clip, weights, given(STEPS), config(precision=precision), steps=STEPS, checkpoints=heard)
    return [*heard.weights, end]


def mean(counted: dict[int, float], of: list[Weights], name: str) -> torch.Tensor:
    """The weighted mean in float64 of weights after some steps."""
    total = sum(counted.values())
    return sum((share / total * of[step - 1][name].double() for step, share in counted.items()), torch.zeros(()))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_expert_is_the_mean_of_its_own_weights(clip: Clip, weights: Weights, precision: str) -> None:
    of = snapshots(clip, weights, precision)
    counted = (
        {5: 1.0, 6: 1.0},
        {2: 1.0, 4: 1.0, 6: 1.0},
        {step: 0.7 ** (STEPS - step) for step in range(1, STEPS + 1)},
    )
    for way, steps in zip(WAYS, counted, strict=True):
        expert = train(clip, weights, given(STEPS), config(way, precision), steps=STEPS)
        assert list(expert) == list(weights)
        for name, tensor in expert.items():
            torch.testing.assert_close(tensor.double(), mean(steps, of, name), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("way", "step"), [*zip(WAYS, (5, 3, 1), strict=True)], ids=str)
def test_interrupted_it_ends_with_the_same_bits(
    clip: Clip, weights: Weights, tmp_path: Path, step: int, way: Any
) -> None:
    undisturbed = train(clip, weights, given(STEPS), config(way), steps=STEPS)
    dying = Kept(tmp_path, (step,), dies_after=step)
    with pytest.raises(KilledError):
        train(clip, weights, given(STEPS), config(way), steps=STEPS, checkpoints=dying)
    assert same(train(clip, weights, given(STEPS), config(way), steps=STEPS, checkpoints=Kept(tmp_path)), undisturbed)


def test_a_short_training_averages_what_there_is(clip: Clip, weights: Weights) -> None:
    whole, longer = (train(clip, weights, given(3), config(last), steps=3) for last in (3, 50))
    assert same(whole, longer)
    one = train(clip, weights, lambda _: made_batches(1), config(4), steps=1)
    assert same(one, train(clip, weights, lambda _: made_batches(1), config(), steps=1))


def test_running_statistics_are_averaged_and_the_counter_is_the_last(tmp_path: Path) -> None:
    clip = batch_norm.model("test-resnet", tmp_path)
    start = batch_norm.start(clip)
    pictures = batch_norm.pictures(2)
    ends = [train(clip, start, lambda _: pictures, config(), steps=2)]
    averaged = train(clip, start, lambda _: pictures, config(2), steps=2)
    for name, tensor in batch_norm.buffers(averaged).items():
        if name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, ends[0][name])
        elif name.endswith("running_var"):
            assert (tensor > 0).all()
            assert not torch.equal(tensor, ends[0][name])


@pytest.mark.parametrize("last", [2, 3, 7])
@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_shares_are_of_a_running_mean_over_the_last_snapshots(last: int, every: int, steps: int) -> None:
    shares = [WithinAverage(last=last, every=every).share(step, steps) for step in range(1, steps + 1)]
    counted = [steps - number * every for number in range(last) if steps - number * every >= 1][::-1]
    assert [step for step, share in enumerate(shares, 1) if share is not None] == counted
    assert [share for share in shares if share is not None] == [1 / number for number in range(1, len(counted) + 1)]


def test_only_where_it_is_set_it_is_part_of_a_training() -> None:
    assert "average_within" not in Training().identity
    assert config(2).identity["average_within"] == config({"last": 2}).identity["average_within"]
    assert len({str(config(way).identity) for way in (None, 2, 3, {"last": 2, "every": 5}, {"ema": 0.5})}) == 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (1, "greater than or equal to 2"),
        ({}, "it is by 'last' or by 'ema'; give one of them"),
        ({"last": 2, "ema": 0.5}, "give one of them"),
        ({"ema": 0.5, "every": 3}, "'every' is of 'last'"),
        ({"ema": 1.0}, "less than 1"),
        (True, "average_within"),
    ],
)
def test_what_is_no_average_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(wrong)
