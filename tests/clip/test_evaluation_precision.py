"""Evaluation in TF32 and in bfloat16 against float32: the mini world's models on all its test images."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from time_ray.clip import features, mini
from time_ray.clip.arithmetic import Arithmetic
from time_ray.clip.evaluate import outcomes
from time_ray.clip.models import base_weights, create
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import accuracies
from time_ray.core.precision import evaluation_precision
from time_ray.core.scoring import Scoring
from time_ray.data import mini as world
from time_ray.data.dataset import Dataset

POINTS = 0.1  # that KA and ZS may move by in the precision that is taken without being asked for
PRODUCTS = {"linear", "matmul", "__matmul__", "scaled_dot_product_attention"}


def to_tf32(value: Any) -> Any:
    """Float32 numbers rounded to ten bits of mantissa, to the nearest even, as tensor cores read them."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class Tf32Products(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in PRODUCTS:
            args = tuple(to_tf32(one) for one in args)
        return func(*args, **(kwargs or {}))


@contextmanager
def tf32_forward(_: Arithmetic) -> Iterator[None]:
    with Tf32Products():
        yield


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    folder, names = tmp_path_factory.mktemp("world"), [*world.NAMES_ADAPTATION, *world.NAMES_EVALUATION]
    world.write(folder, names)
    return [Dataset.open(folder / name) for name in names]


def test_rounding_is_that_of_tf32() -> None:
    one, ulp = 1.0, 2.0**-10
    given = torch.tensor([one + ulp / 2, one + 1.5 * ulp, one + 0.6 * ulp, -one - 0.4 * ulp])
    assert to_tf32(given).tolist() == [one, one + 2 * ulp, one + ulp, -one]


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", mini.MODELS)
def test_what_is_taken_by_itself_moves_no_score_by_more_than_a_tenth_of_a_point(
    datasets: list[Dataset], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = ModelSpec(name=name)
    clip, weights = create(spec), base_weights(spec)

    def scores(precision: str) -> tuple[float, float]:
        scoring = Scoring(precision=precision)  # type: ignore[arg-type]
        found = accuracies(outcomes(clip, [weights], datasets, scoring=scoring)[0])
        sides = (world.NAMES_ADAPTATION, world.NAMES_EVALUATION)
        ka, zs = (sum(found[one] for one in names) / len(names) for names in sides)
        return ka, zs

    exact, bf16 = scores("fp32"), scores("bf16")
    monkeypatch.setattr(features, "HAS_ONEDNN", False)  # whose products are no functions of torch
    monkeypatch.setattr(Arithmetic, "forward", tf32_forward)
    moved = {"tf32": scores("fp32"), "bf16": bf16}
    apart = {kind: max(abs(a - b) for a, b in zip(exact, pair, strict=True)) for kind, pair in moved.items()}
    by_itself = evaluation_precision("auto", "H100")
    assert apart[by_itself] <= POINTS
    print(f"{name}: " + ", ".join(f"{kind} moves KA or ZS by {points:.3f} points" for kind, points in apart.items()))
