"""Chooses a model's learning rate on a task: `python -m time_ray.tools.choose_lr --model mini2-tiny`.

The rule: of a short list, the rate with the best geometric mean of KA and ZS after plain sequential fine-tuning (init
ft, deploy ft) of five tasks, on a stream seed that nothing else uses; on average over image_lr_scale 1 and 0.3, as one
rate serves both. It is chosen once a model, never a cell, so that no strategy is favoured but the plain one.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path

import torch

from time_ray.clip.evaluate import outcomes
from time_ray.clip.mini import MODELS
from time_ray.clip.models import base_weights, create
from time_ray.clip.train import train
from time_ray.core.metrics import METRICS, OF_THE_PAPER, AccuracyHistory, scores
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import accuracies
from time_ray.core.stream import Concept, chunk, random_order
from time_ray.core.training import Training
from time_ray.data import mini
from time_ray.data.batches import batches
from time_ray.data.dataset import Data, Dataset

HELD_OUT_SEED = 1000
RATES = (3e-4, 6e-4, 1e-3, 1.5e-3)
IMAGE_LR_SCALES = (1.0, 0.3)
NUM_TASKS, STEPS = 5, 30
CONFIG = Training(batch_size=64, weight_decay=0.1, decay="matrices", augment="none")


def world(folder: Path) -> Data:
    """The mini world's datasets, written to the folder."""
    mini.write(folder, (*mini.NAMES_ADAPTATION, *mini.NAMES_EVALUATION))
    adaptation, evaluation = (
        tuple(Dataset.open(folder / name) for name in names) for names in (mini.NAMES_ADAPTATION, mini.NAMES_EVALUATION)
    )
    return Data(adaptation, evaluation, None)


def after_stream(spec: ModelSpec, data: Data, config: Training, seed: int) -> Mapping[str, float | None]:
    """The scores of plain sequential fine-tuning once the whole stream was learned."""
    clip, weights = create(spec), base_weights(spec)
    concepts = [Concept(dataset.card.name, name) for dataset in data.adaptation for name in dataset.card.classes]
    tasks = chunk(random_order(concepts, seed), NUM_TASKS)
    for task in tasks:
        drawn = partial(
            batches,
            task,
            tasks[: task.number - 1],
            data,
            Mixture(),
            batch_size=config.batch_size,
            steps=STEPS,
            seed=seed,
            resizing=clip.preprocessing.resizing,
            augment=config.augment,
        )
        weights = train(clip, weights, drawn, config, steps=STEPS)
    (right,) = outcomes(clip, [weights], (*data.adaptation, *data.evaluation))
    return scores(AccuracyHistory([accuracies(right)], mini.NAMES_ADAPTATION, mini.NAMES_EVALUATION))


def best_rate(found: Mapping[tuple[float, float], Mapping[str, float | None]]) -> float:
    """The rate with the best geometric mean, averaged over the scales that were tried with it."""
    means = {rate: [score["gm"] or 0.0 for (tried, _), score in found.items() if tried == rate] for rate, _ in found}
    return max(means, key=lambda rate: sum(means[rate]) / len(means[rate]))


def main() -> None:
    """Print the scores after the last task for every rate, as a table; the best is marked."""
    parser = argparse.ArgumentParser(description="Choose a mini model's fine-tuning rate by the written-down rule.")
    parser.add_argument("--model", choices=tuple(MODELS), required=True)
    parser.add_argument("--image-lr-scales", type=float, nargs="+", default=IMAGE_LR_SCALES)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[float, float], Mapping[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = world(Path(folder))
        for rate, scale in product(given.rates, given.image_lr_scales):
            config = CONFIG.model_copy(update={"lr": rate, "image_lr_scale": scale})
            found[rate, scale] = after_stream(ModelSpec(name=given.model), data, config, given.seed)
            print(f"{given.model} lr {rate:g} image_lr_scale {scale:g}", file=sys.stderr)
    for (rate, scale), score in found.items():
        shown = "  ".join(f"{METRICS[name].title} {score[name]:5.1f}" for name in OF_THE_PAPER)
        print(f"{given.model}  lr {rate:<7g} image_lr_scale {scale:<4g} {shown}")
    print(f"{given.model}  chosen: lr {best_rate(found):g}")


if __name__ == "__main__":
    main()
