"""Training against open_clip's own loop (`open_clip_train.train.train_one_epoch`), step by step in the same process.

Run as `OMP_NUM_THREADS=1 python tests/benchmarks/training.py`; on a machine with a GPU add `--device cuda`, and the big
models run in bfloat16, with their MFU. Both loops get the same pairs, rate and weights, and their losses must agree.
open_clip gets pixels normalised and texts tokenised; time_ray does both in the step. On the CPU times are CPU seconds,
which a busy machine disturbs little, and rounds take turns. Memory is the peak of a process of its own.
"""

import argparse
import hashlib
import json
import logging
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip_train.scheduler import const_lr
from open_clip_train.train import train_one_epoch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from time_ray.clip.cost import operations
from time_ray.clip.loss import ContrastiveStep
from time_ray.clip.models import Clip, create
from time_ray.clip.train import train
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training
from time_ray.data import mini
from time_ray.data.batch import Batch
from time_ray.data.batches import batches
from time_ray.data.dataset import Data, Dataset

LR = 1e-5
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}  # dense bfloat16, FLOP/s
SAVING = {"plain step": {}, "accumulate=8": {"accumulate": 8}, "recompute": {"recompute": True}}


class Setup(NamedTuple):
    """What both loops run."""

    model: str
    batch_size: int
    precision: str
    steps: int


CPU = (Setup("mini-base", 64, "fp32", 12), Setup("ViT-S-32", 32, "fp32", 6), Setup("ViT-B-32", 16, "fp32", 6))
GPU = (Setup("ViT-B-16", 512, "bf16", 12), Setup("ViT-L-14", 128, "bf16", 12))


class Clocked:
    """Batches that note when each is asked for: the time between the second and the last is that of whole steps."""

    def __init__(self, given: Iterable[Any], device: str) -> None:
        self.given = list(given)
        self.device = device
        self.stamps: list[float] = []
        self.num_batches = self.num_samples = len(self.given)

    def __iter__(self) -> Iterator[Any]:
        for number, one in enumerate(self.given):
            if self.device == "cuda" and number in {1, len(self.given) - 1}:
                torch.cuda.synchronize()
            self.stamps.append(time.perf_counter() if self.device == "cuda" else time.process_time())
            yield one

    def seconds(self) -> float:
        """Of one step, on average over all but the first, which warms up, and the last, whose end is not seen."""
        return (self.stamps[-1] - self.stamps[1]) / (len(self.stamps) - 2)


def pairs(clip: Clip, setup: Setup) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    side = clip.preprocessing.resizing.size
    shape = (setup.batch_size, 3, side, side)
    return [
        Batch(
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            [f"a photo of a {i * 37 % 101} year old tree by day {step}" for i in range(setup.batch_size)],
        )
        for step in range(setup.steps)
    ]


def ours(clip: Clip, weights: dict[str, Tensor], given: Clocked, setup: Setup) -> list[float]:
    losses: list[float] = []
    config = Training(lr=LR, min_lr=1, warmup=0, decay="matrices", max_logit_scale=100, precision=setup.precision)
    train(
        clip,
        weights,
        lambda _: given,
        config,
        steps=setup.steps,
        device=given.device,
        on_step=lambda _, loss: losses.append(loss),
    )
    return losses


def theirs(model: torch.nn.Module, weights: dict[str, Tensor], given: Clocked, setup: Setup) -> list[float]:
    model.load_state_dict(weights)
    groups = [[p for p in model.parameters() if (p.ndim < 2) == is_vector] for is_vector in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.0, 0.2), strict=True)], lr=LR
    )
    losses: list[Tensor] = []

    class Loss(open_clip.ClipLoss):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            losses.append(found["contrastive_loss"].detach())
            return found

    args = SimpleNamespace(
        device=given.device,
        precision={"fp32": "fp32", "bf16": "amp_bf16"}[setup.precision],
        distill=False,
        accum_freq=1,
        skip_scheduler=False,
        horovod=False,
        grad_clip_norm=1.0,
        log_every_n_steps=100,
        batch_size=setup.batch_size,
        world_size=1,
        rank=0,
        local_rank=0,
        wandb=False,
    )
    data = {"train": SimpleNamespace(set_epoch=lambda _: None, dataloader=given)}
    train_one_epoch(model, data, Loss(), 0, optimizer, None, const_lr(optimizer, LR, 0, setup.steps), None, args)
    return [loss.item() for loss in losses]


def compare(setup: Setup, device: str, rounds: int) -> None:
    torch.manual_seed(0)
    clip = create(ModelSpec(name=setup.model))
    weights = {name: tensor.clone() for name, tensor in clip.module.state_dict().items()}
    model = open_clip.create_model(setup.model, load_weights=False, pretrained_text=False, output_dict=True).to(device)
    given = pairs(clip, setup)
    ready = [(clip.pixels(batch.images), clip.tokenize(batch.texts)) for batch in given]
    if device == "cuda":
        ready = [(images.pin_memory(), tokens.pin_memory()) for images, tokens in ready]
    mine, plain = [], []
    for _ in range(rounds):
        a, b = Clocked(given, device), Clocked(ready, device)
        losses, expected = ours(clip, weights, a, setup), theirs(model, weights, b, setup)
        far = max(abs(x - y) for x, y in zip(losses, expected, strict=True))
        if far > (1e-3 if setup.precision == "fp32" else 5e-2):
            sys.exit(f"{setup.model}: losses differ by {far}")
        mine.append(setup.batch_size / a.seconds())
        plain.append(setup.batch_size / b.seconds())
    ratio = statistics.median(x / y for x, y in zip(mine, plain, strict=True))
    line = f"{setup.model:10} batch {setup.batch_size:4} {setup.precision}  {max(mine):9.1f} {max(plain):9.1f}"
    print(
        f"{line} samples/s {ratio:6.2f}x{_utilisation(setup, clip, given[0], max(mine), max(plain), device)}",
        flush=True,
    )


def _utilisation(setup: Setup, clip: Clip, batch: Batch, mine: float, plain: float, device: str) -> str:
    """Of the GPU's peak: by open_clip's operations for both, and by those that time_ray's leaner step really does."""
    if device != "cuda":
        return ""
    peak = next((value for name, value in PEAK.items() if name in torch.cuda.get_device_name()), math.nan)
    sample = operations(setup.model, 2).step * 1e9 / 2
    config = Training(lr=LR, precision=setup.precision)
    contrastive_step = ContrastiveStep(clip, config, device=torch.device(device), accumulate=1, seed=0)
    with FlopCounterMode(display=False) as counter:
        contrastive_step.backward(0, *batch, lambda loss: loss)
    done = counter.get_total_flops() / setup.batch_size
    return f"  MFU {mine * sample / peak:.1%} against {plain * sample / peak:.1%}; done {mine * done / peak:.1%}"


def memory(setup: Setup, device: str) -> None:
    for name in SAVING:
        call = [sys.executable, __file__, "--device", device, "--memory", name]
        found = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
        print(
            f"{setup.model} batch {setup.batch_size} {name:14} peak {found['peak_gb']:6.2f} GB, of which before the"
            f" first step {found['before_gb']:5.2f} GB; {found['seconds']:6.2f} s a step; loss {found['loss']:.6f}",
            flush=True,
        )


def one_step(setup: Setup, device: str, name: str) -> None:
    """In a process of its own: the peak of memory over two steps."""
    torch.manual_seed(0)
    clip = create(ModelSpec(name=setup.model))
    weights = {key: tensor.clone() for key, tensor in clip.module.state_dict().items()}
    given, losses = Clocked(pairs(clip, setup), device), []
    before = peak_gb(device)
    train(
        clip,
        weights,
        lambda _: given,
        Training(lr=LR, precision=setup.precision),
        steps=setup.steps,
        device=device,
        on_step=lambda _, loss: losses.append(loss),
        **SAVING[name],
    )
    seconds = given.seconds()
    print(json.dumps({"before_gb": before, "peak_gb": peak_gb(device), "seconds": seconds, "loss": losses[-1]}))


def peak_gb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    (most,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(most) * 1024 / 1e9  # unlike ru_maxrss, not inherited from the process that started this one


def seeds() -> None:
    """The same seed repeats to the last bit, another does not."""
    name, steps = mini.NAMES_ADAPTATION[0], 8
    with tempfile.TemporaryDirectory() as folder:
        mini.write(folder, [name])
        dataset = Dataset.open(Path(folder) / name)
        task = Task(1, tuple(Concept(name, classname) for classname in dataset.card.classes))
        clip = create(ModelSpec(name="mini-tiny"))
        weights = {key: tensor.clone() for key, tensor in clip.module.state_dict().items()}

        def digest(seed: int) -> str:
            stream: Callable[[int], Iterable[Batch]] = partial(
                batches,
                task,
                (),
                Data((dataset,), (), None),
                Mixture(),
                batch_size=32,
                steps=steps,
                seed=seed,
                resizing=clip.preprocessing.resizing,
                augment="crop",
                loaders=2,
            )
            expert = train(clip, weights, stream, Training(lr=1e-3, batch_size=32), steps=steps, seed=seed)
            return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in expert.values())).hexdigest()[:16]

        print(f"seed 0: {digest(0)}, again: {digest(0)}; seed 1: {digest(1)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Training against open_clip's own loop.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", choices=tuple(SAVING), help="only this step's peak of memory, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1 if given.device == "cpu" else torch.get_num_threads())
    logging.disable(logging.WARNING)
    large = Setup("ViT-B-32", 128, "fp32", 3) if given.device == "cpu" else Setup("ViT-L-14", 128, "bf16", 4)
    if given.memory:
        one_step(large, given.device, given.memory)
        return
    print(f"{'':30} {'time_ray':>9} {'open_clip':>9}")
    for setup in CPU if given.device == "cpu" else GPU:
        compare(setup, given.device, given.rounds)
    memory(large, given.device)
    seeds()


if __name__ == "__main__":
    main()
