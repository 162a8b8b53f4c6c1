"""Makes a base model: `python -m time_ray.tools.pretrain_mini --model mini2-tiny -o FOLDER`.

Learns from fresh pictures of the kinds of the model's pool. What is kept is the moving average of the weights over the
last tenth of the steps, which lies in a flatter place than the last weights do. A usable base is in FOLDER early.
"""

import argparse
import json
import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from time_ray.clip.device_names import device_names
from time_ray.clip.evaluate import outcomes
from time_ray.clip.mini import MODELS
from time_ray.clip.models import Clip, create
from time_ray.clip.train import train
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import accuracies
from time_ray.core.training import Training
from time_ray.data import mini
from time_ray.data.batch import Batch
from time_ray.data.dataset import Dataset
from time_ray.data.mini.pool import ROWS
from time_ray.python_child import safe_spawning
from time_ray.whole_files import file_digest, replacing

CONFIG = Training(
    batch_size=128,
    lr=2e-3,
    decay="matrices",
    weight_decay=0.1,
    beta2=0.98,
    warmup=0.05,
    max_logit_scale=100.0,
    augment="none",
)
_SHIFT = 2  # pictures move by up to this many pixels in either direction
_SAVE_SECONDS = 30
_PART = 1000  # pictures that a process renders at a time


class Pictures(NamedTuple):
    """Rendered samples in memory: uint8 [N, 3, 32, 32] and the captions of each."""

    pixels: NDArray[np.uint8]
    captions: list[tuple[str, ...]]


def render(pool: str, number: int, workers: int = 1) -> Pictures:
    """The `number` pictures that follow those of the pool, so that replayed pictures are new to the base.

    They are the same whatever the number of processes that render them.
    """
    parts = [range(first, min(first + _PART, ROWS + number)) for first in range(ROWS, ROWS + number, _PART)]
    if workers == 1:
        done = [_rendered(pool, part) for part in parts]
    else:
        with safe_spawning(), multiprocessing.get_context("spawn").Pool(workers) as processes:
            done = processes.map(partial(_rendered, pool), parts, chunksize=1)
    return Pictures(
        np.concatenate([part.pixels for part in done]), [captions for part in done for captions in part.captions]
    )


def _rendered(pool: str, indices: range) -> Pictures:
    samples = [mini.POOLS[pool](index) for index in indices]
    return Pictures(np.stack([sample.pixels.transpose(2, 0, 1) for sample in samples]), [s.captions for s in samples])


def batches(pictures: Pictures, batch_size: int, seed: int) -> Iterator[Batch]:
    """Endless passes over the pictures, each shuffled, moved a little, and with any one of its captions."""
    rng = np.random.Generator(np.random.Philox(seed))
    total = len(pictures.captions)
    while True:
        order = rng.permutation(total)
        for start in range(0, total - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            texts = [pictures.captions[i][rng.integers(len(pictures.captions[i]))] for i in chosen]
            yield Batch(torch.from_numpy(_moved(pictures.pixels[chosen], rng)), texts)


def _moved(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    side = images.shape[-1]
    room = np.pad(images, ((0, 0), (0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT)), mode="edge")
    corners = rng.integers(0, 2 * _SHIFT + 1, (len(images), 2))
    return np.stack([image[:, y : y + side, x : x + side] for image, (y, x) in zip(room, corners, strict=True)])


class Average:
    """The moving average of a module's weights over about the last tenth of the steps so far."""

    def __init__(self, module: nn.Module) -> None:
        self._live = list(module.state_dict().values())  # what training changes in place
        self._seen = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def update(self) -> None:
        """Take in the module's weights as they are now."""
        self._seen += 1
        for mean, now in zip(self.weights.values(), self._live, strict=True):
            mean.lerp_(now, 10 / (10 + self._seen))


def pretrain(
    name: str, pictures: Pictures, config: Training, *, steps: int, stop: int, seed: int, folder: Path, device: str
) -> dict[str, Tensor]:
    """The averaged weights after the first `stop` of `steps` steps from scratch, on the CPU.

    They are in the folder, in half precision, every half minute.
    """
    torch.manual_seed(seed)
    clip = create(ModelSpec(name=name))
    start = {key: tensor.clone() for key, tensor in clip.module.state_dict().items()}
    average = Average(clip.load(start, device))
    path = folder / f"{name}.safetensors"
    progress = _progress(name, steps)
    saved = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        nonlocal saved
        average.update()
        progress(step, loss)
        if time.monotonic() - saved > _SAVE_SECONDS:
            save_half(average.weights, path)
            saved = time.monotonic()

    def data(first: int) -> Iterator[Batch]:
        return islice(batches(pictures, config.batch_size, seed), first, stop)

    train(clip, start, data, config, steps=steps, device=device, on_step=on_step)
    save_half(average.weights, path)
    return {key: tensor.cpu() for key, tensor in average.weights.items()}


def _progress(name: str, steps: int) -> Callable[[int, float], None]:
    began, recent = time.monotonic(), [0.0] * 100

    def show(step: int, loss: float) -> None:
        recent[step % 100] = loss
        if step % 100 == 0:
            seconds = (time.monotonic() - began) / step
            print(
                f"{name} {step}/{steps} loss {sum(recent) / 100:.3f} {seconds:.3f} s a step",
                file=sys.stderr,
                flush=True,
            )

    return show


def save_half(weights: Mapping[str, Tensor], path: Path) -> None:
    """The weights are in the file, as float16. A reader never sees half a file."""
    with replacing(path) as draft:
        save_file({name: tensor.half().cpu().contiguous() for name, tensor in weights.items()}, draft)


def scores(clip: Clip, *weights: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Zero-shot accuracy (%) of each model on every dataset of the mini world."""
    with tempfile.TemporaryDirectory() as folder:
        names = (*mini.NAMES_EVALUATION, *mini.NAMES_ADAPTATION)
        mini.write(folder, names)
        found = outcomes(clip, weights, [Dataset.open(Path(folder) / name) for name in names])
        return [accuracies(right) for right in found]


def _mean(found: Mapping[str, float], names: tuple[str, ...]) -> float:
    return round(sum(found[name] for name in names) / len(names), 2)


def card(name: str, full: Mapping[str, Tensor], path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What is known of a base: how it was made, and how well it does (in half precision, as shipped)."""
    shipped = {key: tensor.float() for key, tensor in load_file(path).items()}
    found, in_full = scores(create(ModelSpec(name=name)), shipped, full)
    mean = _mean(found, mini.NAMES_EVALUATION)
    return {
        "model": name,
        "parameters": sum(tensor.numel() for tensor in full.values()),
        "world_version": mini.VERSION,
        "pool": MODELS[name].pool,
        **facts,
        "sha256": file_digest(path),
        "zero_shot": {key: round(value, 2) for key, value in found.items()},
        "zero_shot_mean_evaluation": mean,
        "change_by_half_precision": round(mean - _mean(in_full, mini.NAMES_EVALUATION), 2),
        "zero_shot_mean_adaptation": _mean(found, mini.NAMES_ADAPTATION),
    }


def main() -> None:
    """Train one base; write its weights and its card."""
    parser = argparse.ArgumentParser(description="Train a base model of the mini world from scratch.")
    parser.add_argument("--model", choices=tuple(MODELS), required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--stop", type=int, help="end after so many steps of the schedule; the average needs no more")
    parser.add_argument("--lr", type=float, default=CONFIG.lr)
    parser.add_argument("--batch-size", type=int, default=CONFIG.batch_size)
    parser.add_argument("--pictures", type=int, default=200_000, help="how many are rendered, and seen again and again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="what trains it: cpu or cuda")
    parser.add_argument("--workers", type=int, default=1, help="processes that render; the pictures are the same")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    wall, cpu = time.monotonic(), time.process_time()
    stop = given.stop or given.steps
    config = CONFIG.model_copy(update={"lr": given.lr, "batch_size": given.batch_size})
    full = pretrain(
        given.model,
        render(MODELS[given.model].pool, given.pictures, given.workers),
        config,
        steps=given.steps,
        stop=stop,
        seed=given.seed,
        folder=given.output,
        device=given.device,
    )
    words = ["FOLDER" if word == str(given.output) else word for word in sys.argv[1:]]
    facts = {
        "command": shlex.join(["python", "-m", "time_ray.tools.pretrain_mini", *words]),
        "seed": given.seed,
        "steps": stop,
        "samples": stop * config.batch_size,
        "pictures": given.pictures,
        "training": config.model_dump(),
        "device": device_names(given.device),
        "wall_seconds": round(time.monotonic() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
    }
    path = given.output / f"{given.model}.safetensors"
    (given.output / f"{given.model}.json").write_text(json.dumps(card(given.model, full, path, facts), indent=2) + "\n")


if __name__ == "__main__":
    main()
