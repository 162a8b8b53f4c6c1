"""Several workers train and evaluate as one does."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch
from pictures import SMALL, rows
from scores import evaluate
from torch import Tensor, distributed
from torch.multiprocessing import spawn

from time_ray.clip.models import create
from time_ray.clip.train import train
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.preprocessing import Resizing
from time_ray.core.scoring import Scoring
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training
from time_ray.data.batches import batches
from time_ray.data.dataset import Data, Dataset

# A usual eps would blow rounding up where a gradient is zero in theory.
CONFIG = Training(lr=1e-2, eps=1e-3, batch_size=16)
STEPS = 5
SAVING_MEMORY = ({}, {"accumulate": 3}, {"accumulate": 2, "recompute": True})
IN_BF16 = CONFIG.model_copy(update={"precision": "bf16"})
AVERAGED = Training.model_validate({**CONFIG.model_dump(), "average_within": {"ema": 0.5}})
HALF = Scoring(subset=0.5)


def work(rank: int, world_size: int, folder: Path) -> None:
    """Train and evaluate as one of several workers, and save what comes out."""
    torch.set_num_threads(1)
    open_clip.add_model_config(folder / "test-small.json")
    clip = create(ModelSpec(name="test-small"))
    pets, pairs = (Dataset.open(folder / name) for name in ("pets", "pairs"))
    stream = partial(
        batches,
        Task(1, (Concept("pets", "cat"), Concept("pets", "owl"))),
        (),
        Data((pets,), (), None),
        Mixture(),
        batch_size=CONFIG.batch_size,
        steps=STEPS,
        seed=0,
        resizing=Resizing(16),
        augment="crop",
        rank=rank,
        world_size=world_size,
    )
    if world_size > 1:
        meeting = f"file://{folder}/start-{world_size}"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    start = torch.load(folder / "weights.pt")
    experts = [train(clip, start, stream, CONFIG, steps=STEPS, **knobs) for knobs in SAVING_MEMORY]  # type: ignore[arg-type]
    experts += [train(clip, start, stream, IN_BF16, steps=STEPS, accumulate=2)]
    experts += [train(clip, start, stream, AVERAGED, steps=STEPS)]
    (scores,) = evaluate(clip, [start], [pets, pairs], scoring=HALF, seed=1, shard=(rank, world_size))
    torch.save((experts, scores), folder / f"{world_size}-{rank}.pt")
    if world_size > 1:
        distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.nightly)])
def test_workers_agree_with_one(
    tmp_path: Path, weights: dict[str, Tensor], make_dataset: Callable[..., Dataset], world_size: int
):
    make_dataset("pets", rows(60), rows(31))
    captioned = [row._replace(captions=row.captions[: 1 + number % 2]) for number, row in enumerate(rows(331))]
    make_dataset("pairs", [], captioned, kind="retrieval")
    (tmp_path / "test-small.json").write_text(json.dumps(SMALL))
    torch.save(weights, tmp_path / "weights.pt")
    work(0, 1, tmp_path)
    spawn(work, (world_size, tmp_path), world_size)

    (alone, *saving, rounded, averaged), scores = torch.load(tmp_path / "1-0.pt")
    assert 0 < scores["pairs/r1"] < scores["pairs"] < 100
    moved = max(float((alone[name] - weights[name]).abs().max()) for name in weights)
    assert moved > 1e-3
    for rank in range(world_size):
        (*together, rounded_together, averaged_together), shared_scores = torch.load(
            tmp_path / f"{world_size}-{rank}.pt"
        )
        assert shared_scores == scores
        apart = max(float((rounded_together[name] - tensor).abs().max()) for name, tensor in rounded.items())
        assert 0 < apart < moved / 10  # gradients are sums of 16 bits before they meet
        for expert in (*together, *saving):
            for name, tensor in alone.items():
                torch.testing.assert_close(expert[name], tensor, atol=2e-6, rtol=0)
        for name, tensor in averaged.items():
            torch.testing.assert_close(averaged_together[name], tensor, atol=2e-6, rtol=0)
