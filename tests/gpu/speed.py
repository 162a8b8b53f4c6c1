"""Measures: what a device does in a second, beside open_clip's own loop in the same run."""

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from machine import Machine, Weights, pairs
from PIL import Image
from torch import nn

from time_ray import merging
from time_ray.clip.cost import operations
from time_ray.clip.evaluate import outcomes
from time_ray.clip.features import compiling
from time_ray.clip.loss import ContrastiveStep
from time_ray.clip.models import Clip, create
from time_ray.clip.optimizer import Optimizer
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.scoring import Scoring
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training
from time_ray.data.batch import Batch
from time_ray.data.batches import batches
from time_ray.data.dataset import Data, Dataset, Row, write_dataset
from time_ray.data.image_cache import ImageCache
from time_ray.store.files import Files
from time_ray.store.store import Store

Row_ = dict[str, Any]
TIMED = 5  # steps
TRACE = "trace.json"


def training(machine: Machine) -> Iterator[Row_]:
    """Milliseconds of a step, those until the device was told all of it, MFU, peak memory; open_clip's loop beside."""
    models = ("ViT-B-32", "ViT-B-16", "ViT-L-14") if machine.is_gpu else ("mini-tiny",)
    for model in models:
        clip, weights = fresh(model)
        for precision in machine.precisions:
            for count in sizes(machine, precision):
                row: Row_ = {"model": model, "precision": precision, "pairs": count}
                for way, step in {"ours": our_step, "open_clip": their_step}.items():
                    row |= if_it_fits(way, partial(step, clip, weights, precision, count, machine))
                yield row
        clip.module.to("cpu")


def compiled(machine: Machine) -> Iterator[Row_]:
    """Steps whose blocks are compiled, seconds of compiling, and the same steps without."""
    if not machine.is_gpu:
        yield {"skipped": "a compiler of the CPU takes minutes"}
        return
    for model in ("ViT-B-32", "ViT-B-16"):
        clip, weights = fresh(model)
        for count in (64, 512):
            row: Row_ = {"model": model, "precision": "bf16", "pairs": count}
            row |= if_it_fits("plain", partial(our_step, clip, weights, "bf16", count, machine))
            began = time.perf_counter()
            row |= if_it_fits("compiled", partial(our_step, clip, weights, "bf16", count, machine, compile_blocks=True))
            yield row | {"s to compile and run": round(time.perf_counter() - began, 1)}
        clip.module.to("cpu")


def fresh(model: str) -> tuple[Clip, Weights]:
    """An architecture and weights as they are before any training."""
    clip = create(ModelSpec(name=model))
    return clip, {name: tensor.clone() for name, tensor in clip.module.state_dict().items()}


def sizes(machine: Machine, precision: str) -> tuple[int, ...]:
    """Pairs of a step; float32 on a GPU takes seconds at the larger ones, and says nothing more there."""
    if not machine.is_gpu:
        return (8,)
    return (64,) if precision == "fp32" else (64, 256, 512)


def if_it_fits(way: str, run: Callable[[], Row_]) -> Row_:
    """What was found, each name with the way that it is of."""
    try:
        found = run()
    except torch.OutOfMemoryError:
        found = {"out of memory": True}
        torch.cuda.empty_cache()
    return {f"{way} {what}": value for what, value in found.items()}


def our_step(
    clip: Clip, weights: Weights, precision: str, count: int, machine: Machine, *, compile_blocks: bool = False
) -> Row_:
    config = Training(lr=1e-6, precision=precision, batch_size=count)  # type: ignore[arg-type]
    module = clip.load(weights, machine.device).train()
    optimizer = Optimizer(module, config, steps=1000, device=machine.device)
    contrastive = ContrastiveStep(clip, config, device=machine.device, accumulate=1, seed=0)
    given, notes = pairs(clip, 1, count), list[str]()
    images = given[0].images.pin_memory() if machine.is_gpu else given[0].images

    def step(number: int) -> None:
        contrastive.backward(number, images, given[0].texts, optimizer.scaled)
        optimizer.step(number)

    if not compile_blocks:
        return timed(step, clip, count, precision, machine)
    with compiling(clip, pairs=count, forward=contrastive.forward, say=notes.append):
        found = timed(step, clip, count, precision, machine)
    return found | ({"why not": notes[0]} if notes else {})


def their_step(clip: Clip, weights: Weights, precision: str, count: int, machine: Machine) -> Row_:
    """open_clip's training step (`open_clip_train.train.train_one_epoch`), on pixels and tokens that are ready."""
    module = clip.load(weights, machine.device).train()
    adamw = torch.optim.AdamW(module.parameters(), lr=1e-6)
    (batch,) = pairs(clip, 1, count)
    images, tokens = clip.pixels(batch.images), clip.tokenize(batch.texts)
    if machine.is_gpu:
        images, tokens = images.pin_memory(), tokens.pin_memory()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"

    def step(_: int) -> None:
        adamw.zero_grad()
        with torch.autocast(machine.device.type, dtype, enabled=dtype != torch.float32):
            there = (one.to(machine.device, non_blocking=True) for one in (images, tokens))
            loss = open_clip.ClipLoss()(*module(*there))
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        adamw.step()

    try:
        return timed(step, clip, count, precision, machine)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def timed(step: Callable[[int], None], clip: Clip, count: int, precision: str, machine: Machine) -> Row_:
    for number in range(3):
        step(number)
    machine.wait()
    if machine.is_gpu:
        torch.cuda.reset_peak_memory_stats(machine.device)
    told, began = 0.0, time.perf_counter()
    for number in range(3, 3 + TIMED):
        start = time.perf_counter()
        step(number)
        told += time.perf_counter() - start
    machine.wait()
    seconds = (time.perf_counter() - began) / TIMED
    found = {"ms": round(1000 * seconds, 2), "dispatch ms": round(1000 * told / TIMED, 2)}
    peak = machine.peak(precision)
    if peak is not None:
        found["MFU"] = round(operations(clip.name, 2).step * 1e9 / 2 * count / seconds / peak, 4)
    if machine.is_gpu:
        found["peak GB"] = round(torch.cuda.max_memory_allocated(machine.device) / 1e9, 2)
    return found


def photographs(folder: Path, count: int) -> Dataset:
    """JPEGs of 400 x 300 pixels with structure at all scales."""
    noise = np.random.default_rng(0)

    def photograph() -> bytes:
        total = np.zeros((300, 400, 3))
        for scale in (2, 8, 32):
            small = noise.integers(0, 256, (300 // scale + 1, 400 // scale + 1, 3), dtype=np.uint8)
            total += np.asarray(Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC))
        stream = io.BytesIO()
        Image.fromarray((total / 3).astype(np.uint8)).save(stream, "JPEG", quality=85)
        return stream.getvalue()

    rows = [Row(photograph(), (f"thing {number}",), number % 4, str(number)) for number in range(count)]
    classes = ("cat", "dog", "owl", "fox")
    write_dataset(
        folder / "photographs",
        name="photographs",
        splits={"train": rows, "test": rows},
        classes=classes,
        kind="classification",
        templates=("a {}.",),
    )
    return Dataset.open(folder / "photographs")


def loaders(machine: Machine) -> Iterator[Row_]:
    """Images a second that threads make of JPEGs, for training: torch has one thread in each, as in a trial."""
    clip = create(ModelSpec(name="ViT-B-32"))
    dataset = photographs(machine.folder, 512 if machine.is_gpu else 32)
    task = Task(1, tuple(Concept("photographs", name) for name in dataset.card.classes))
    count, steps = (256, 8) if machine.is_gpu else (16, 2)
    for number in (1, 2, 4, 6, 8, 12) if machine.is_gpu else (1, 2):
        stream: Iterator[Batch] = batches(
            task,
            (),
            Data((dataset,), (), None),
            Mixture(),
            batch_size=count,
            steps=steps,
            seed=0,
            resizing=clip.preprocessing.resizing,
            augment="crop",
            loaders=number,
            pinned=machine.is_gpu,
        )
        began = time.perf_counter()
        made = sum(len(batch.texts) for batch in stream)
        yield {"loaders": number, "images/s": round(made / (time.perf_counter() - began), 1)}


def evaluation(machine: Machine) -> Iterator[Row_]:
    """Images a second through one model: of JPEGs, and decoded before."""
    model, count = ("ViT-B-32", 2048) if machine.is_gpu else ("mini-tiny", 32)
    clip, weights = fresh(model)
    with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
        dataset = photographs(Path(folder), count)
        for precision in machine.precisions:
            cache = ImageCache(Path(folder) / precision)

            def score(precision: str = precision, cache: ImageCache = cache) -> None:
                scoring = Scoring(precision=precision)  # type: ignore[arg-type]
                outcomes(clip, [weights], [dataset], scoring=scoring, device=machine.device, loaders=4, cache=cache)

            row: Row_ = {"model": model, "precision": precision}
            for where in ("JPEG", "decoded"):
                began = time.perf_counter()
                score()
                machine.wait()
                row[f"{where} images/s"] = round(count / (time.perf_counter() - began), 1)
            yield row


def merges(machine: Machine) -> Iterator[Row_]:
    """Seconds of a merge of four experts that rest on the CPU, computed there and on the device."""
    _, base = fresh("ViT-B-16" if machine.is_gpu else "mini-tiny")
    noise = torch.Generator().manual_seed(0)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        return tensor + 0.01 * torch.randn(tensor.shape, generator=noise)

    experts = [{name: moved(tensor) for name, tensor in base.items()} for _ in range(4)]
    names = ("average", "slerp", "ties", "dare_ties", "iso_c", "opcm") if machine.is_gpu else ("average", "ties")
    for name in names:
        row: Row_ = {"technique": name}
        for device in dict.fromkeys(["cpu", str(machine.device)]):
            run = partial(merging.merge, base, experts, name, device=device)
            row[f"{device} s"] = round(machine.seconds(run, times=1), 3)
        yield row


def store_writes(machine: Machine) -> Iterator[Row_]:
    """Bytes a second of weights that are written with their digest."""
    _, weights = fresh("ViT-B-32" if machine.is_gpu else "mini-tiny")
    size = sum(tensor.nbytes for tensor in weights.values())
    store = Store(Files(str(machine.folder / "writes")))
    began = time.perf_counter()
    for number in range(3):
        store.put(f"{number:032x}", {name: tensor + number for name, tensor in weights.items()}, {})
    yield {"MB": round(size / 1e6, 1), "MB/s": round(3 * size / 1e6 / (time.perf_counter() - began), 1)}


def trace(machine: Machine) -> Iterator[Row_]:
    """Three steps as a trace that chrome://tracing and ui.perfetto.dev open."""
    clip = create(ModelSpec(name="ViT-B-16" if machine.is_gpu else "mini-tiny"))
    config = Training(lr=1e-6, precision=machine.precisions[-1], batch_size=64)  # type: ignore[arg-type]
    module = clip.module.to(machine.device).train()
    optimizer = Optimizer(module, config, steps=10, device=machine.device)
    contrastive = ContrastiveStep(clip, config, device=machine.device, accumulate=1, seed=0)
    (batch,) = pairs(clip, 1, 64 if machine.is_gpu else 8)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if machine.is_gpu else []
    contrastive.backward(0, batch.images, batch.texts, optimizer.scaled)
    with torch.profiler.profile(activities=kinds) as profile:
        for number in range(3):
            contrastive.backward(number, batch.images, batch.texts, optimizer.scaled)
            optimizer.step(number)
        machine.wait()
    profile.export_chrome_trace(str(machine.folder / TRACE))
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    yield {"kernels a step": len(events) // 3}


MEASURES: Mapping[str, Callable[[Machine], Iterator[Row_]]] = {
    "training": training,
    "compiled": compiled,
    "loaders": loaders,
    "evaluation": evaluation,
    "merges": merges,
    "store writes": store_writes,
    "trace": trace,
}
