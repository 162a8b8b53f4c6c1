"""Checks: whether a device computes what the CPU does, waits for nothing, leaks nothing and fails as it should.

Each returns what it measured, and raises AssertionError with what is wrong.
"""

import io
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from machine import Machine, Weights, farthest, mini, pairs
from PIL import Image
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing import spawn

from time_ray import merging
from time_ray.clip.evaluate import outcomes
from time_ray.clip.loss import ContrastiveStep
from time_ray.clip.optimizer import Optimizer
from time_ray.clip.train import train
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.work import work
from time_ray.core.errors import CellError
from time_ray.core.experiment import Experiment
from time_ray.core.scoring import Scoring
from time_ray.core.training import Training
from time_ray.data.dataset import Dataset, Row, write_dataset
from time_ray.data.sources import prepare
from time_ray.merging.toy_models import near, world
from time_ray.results import read_results
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import find_datasets, resolve

Found = Mapping[str, Any]
STEPS, CPU_STEPS, PAIRS = 20, 5, 32
CONFIG = Training(lr=1e-4, eps=1e-4, precision="fp32", batch_size=PAIRS)  # rounding of tiny gradients moves no step far


def trained(machine: Machine, precision: str = "fp32", steps: int = 0, **how: Any) -> tuple[Weights, list[float]]:
    clip, weights = mini()
    steps = steps or num_steps(machine)
    given, losses = pairs(clip, steps, PAIRS), list[float]()
    config = CONFIG.model_copy(update={"precision": precision})
    expert = train(
        clip,
        weights,
        lambda first: given[first:],
        config,
        steps=steps,
        device=how.pop("device", machine.device),
        on_step=lambda _, loss: losses.append(loss),
        **how,
    )
    return expert, losses


def num_steps(machine: Machine) -> int:
    return STEPS if machine.is_gpu else CPU_STEPS


def training_agrees_with_the_cpu(machine: Machine) -> Found:
    expected, losses = trained(machine, device="cpu")
    expert, _ = trained(machine)
    far = {"fp32": farthest(expert, expected)}
    assert far["fp32"] < 1e-4, f"after {num_steps(machine)} steps in fp32 a weight is {far['fp32']:.1e} off"
    for name, how in {"accumulate": {"accumulate": 4}, "recompute": {"recompute": True}}.items():
        far[name] = farthest(trained(machine, **how)[0], expert)
        assert far[name] < 1e-4, f"with {name} a weight is {far[name]:.1e} off"
    for precision in machine.precisions[1:]:
        other, its_losses = trained(machine, precision)
        far[precision] = farthest(other, expert)
        apart = max(abs(a - b) for a, b in zip(losses, its_losses, strict=True))
        assert apart < 0.05, f"losses in {precision} are {apart:.3f} off"
    return far


def float16_loses_no_more_steps_than_open_clip(machine: Machine) -> Found:
    clip, weights = mini()
    config = CONFIG.model_copy(update={"precision": "fp16", "lr": 1e-5, "warmup": 0.0})
    given = pairs(clip, num_steps(machine), PAIRS if machine.is_gpu else 8)
    module = clip.load(weights, machine.device).train()
    optimizer = Optimizer(module, config, steps=len(given), device=machine.device)
    contrastive = ContrastiveStep(clip, config, device=machine.device, accumulate=1, seed=0)
    for step, batch in enumerate(given):
        contrastive.backward(step, batch.images, batch.texts, optimizer.scaled)
        optimizer.step(step)
    ours = float(optimizer.state()["scaler/scale"])
    theirs = scale_of_open_clip(clip.load(weights, machine.device).train(), clip, given, machine)
    assert ours >= theirs, f"the loss scale ends at {ours:g}, that of open_clip's loop at {theirs:g}"
    return {"scale": ours, "scale_of_open_clip": theirs}


def scale_of_open_clip(module: nn.Module, clip: Any, given: Any, machine: Machine) -> float:
    """The last loss scale of its own loop in float16: autocast, scaler, unscale, clip, step."""
    scaler, adamw = torch.amp.GradScaler(machine.device.type), torch.optim.AdamW(module.parameters(), lr=1e-5)
    for batch in given:
        adamw.zero_grad()
        images, tokens = clip.pixels(batch.images.to(machine.device)), clip.tokenize(batch.texts).to(machine.device)
        with torch.autocast(machine.device.type, torch.float16):
            loss = open_clip.ClipLoss()(*module(images, tokens))
        scaler.scale(loss).backward()
        scaler.unscale_(adamw)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        scaler.step(adamw)
        scaler.update()
    return scaler.get_scale()


class Kept:
    """Step checkpoints in memory: one is kept after that many steps."""

    def __init__(self, at: int) -> None:
        self.at, self.found = at, None

    def load(self) -> Any:
        return self.found

    def due(self, step: int) -> bool:
        return step == self.at

    def save(self, step: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        self.found = step, {name: tensor.clone() for name, tensor in state().items()}


def resumes_from_a_step_checkpoint(machine: Machine) -> Found:
    kept = Kept(3)
    expert, _ = trained(machine, checkpoints=kept)
    assert kept.found is not None, "no checkpoint was kept"
    again, _ = trained(machine, checkpoints=kept)
    far = farthest(again, expert)
    assert far < (1e-5 if machine.is_gpu else 1e-12), f"a training that goes on ends {far:.1e} off"
    return {"far": far}


def a_step_waits_for_nothing(machine: Machine) -> Found:
    if not machine.is_gpu:
        return {"skipped": "only a GPU can be waited for"}
    clip, weights = mini()
    config = CONFIG.model_copy(update={"precision": "bf16" if "bf16" in machine.precisions else "fp32"})
    module = clip.load(weights, machine.device).train()
    optimizer = Optimizer(module, config, steps=4, device=machine.device)
    contrastive = ContrastiveStep(clip, config, device=machine.device, accumulate=1, seed=0)
    for step, batch in enumerate(pairs(clip, 4, PAIRS)):
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            contrastive.backward(step, batch.images, batch.texts, optimizer.scaled)
            optimizer.step(step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"steps": 3}


def pictures(folder: Path, count: int, captions: bool) -> Dataset:
    """Random pictures of four classes, each with a caption if that is what they are asked for."""
    noise = np.random.default_rng(0)
    rows = []
    for number in range(count):
        stream = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
        rows.append(Row(stream.getvalue(), (f"thing {number}",), -1 if captions else number % 4, str(number)))
    classes, templates = ((), ()) if captions else (("cat", "dog", "owl", "fox"), ("a {}.",))
    kind, name = ("retrieval", "captions") if captions else ("classification", "classes")
    splits = {"train": rows[:4], "test": rows}
    write_dataset(folder / name, name=name, splits=splits, classes=classes, templates=templates, kind=kind)
    return Dataset.open(folder / name)


def evaluation_agrees_with_the_cpu(machine: Machine) -> Found:
    clip, weights = mini()
    noise = torch.Generator().manual_seed(0)
    models = [
        {name: t + 0.01 * i * torch.randn(t.shape, generator=noise) for name, t in weights.items()} for i in range(16)
    ]
    count = 1000 if machine.is_gpu else 60
    datasets = [pictures(machine.folder, count, captions) for captions in (False, True)]

    def found(number: int, precision: str = "fp32", device: Any = machine.device) -> np.ndarray:
        scoring = Scoring(precision=precision)  # type: ignore[arg-type]
        each = outcomes(clip, models[:number], datasets, scoring=scoring, device=device, loaders=2)
        return np.stack([np.concatenate([np.asarray(right) for right in one.values()]) for one in each])

    expected, shares = found(16, device="cpu"), dict[str, float]()
    for number in (1, 6, 16):
        shares[f"{number} models"] = float((found(number) != expected[:number]).mean())
        assert shares[f"{number} models"] < 1e-3, (
            f"{number} models: {shares[f'{number} models']:.2%} of outcomes differ"
        )
    for precision in machine.precisions[1:]:
        shares[precision] = float((found(4, precision) != expected[:4]).mean())
        assert shares[precision] < 0.05, f"{precision}: {shares[precision]:.2%} of outcomes differ"
    return {"share of outcomes that differ": shares}


def memory_stays_flat(machine: Machine) -> Found:
    clip, weights = mini()
    given = pairs(clip, 2, 8)
    datasets = [pictures(machine.folder / "flat", 40, captions=False)]

    def work_once(diverging: bool) -> None:
        lr = 1e6 if diverging else 1e-4
        config = Training(lr=lr, precision="fp32", batch_size=8, clip_norm=None, warmup=0)
        try:
            train(clip, weights, lambda first: given[first:], config, steps=2, device=machine.device)
        except CellError:
            assert diverging, "a training diverged that should not"
        outcomes(clip, [weights], datasets, device=machine.device)

    for _ in range(2):
        work_once(diverging=False)
    before = machine.held()
    for number in range(20):
        work_once(diverging=number < 3)
    after = machine.held()
    assert after <= before + 2**16, f"{after - before} more bytes after 20 trainings and evaluations"
    return {"before": before, "after": after}


def goes_on_after_it_was_out_of_memory(machine: Machine) -> Found:
    if not machine.is_gpu:
        return {"skipped": "the memory of a machine has no bound of its own"}
    total = torch.cuda.get_device_properties(machine.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3e8 / total), machine.device)
    clip, weights = mini("mini-large")
    large = pairs(clip, 1, 4096)
    config = Training(lr=1e-4, precision="fp32", batch_size=4096)
    message = ""
    try:
        train(clip, weights, lambda _: large, config, steps=1, device=machine.device)
    except torch.OutOfMemoryError as error:
        message = str(error).partition(". ")[0]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, machine.device)
    assert message, "4096 pairs fitted into 300 MB"
    torch.cuda.empty_cache()
    trained(machine, steps=2)
    return {"message": message}


def the_backend_runs_a_sweep(machine: Machine) -> Found:
    written = {
        "name": "check",
        "init": ["zs", "ft"],
        "deploy": ["ft", "all"],
        "technique": "average",
        "model": "mini-tiny",
        "budget": "4 steps",
        "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
        "stream": {"tasks": 2},
        "training": {"batch_size": 16, "precision": "fp32"},
        "run": {"workers": 1, "gpus": 1 if machine.is_gpu else 0},
    }
    found = {}
    for device in dict.fromkeys(["cpu", str(machine.device)]):
        files = Files(str(machine.folder / f"sweep-{device.partition(':')[0]}"))
        experiment = Experiment.model_validate(written)
        datasets = find_datasets(experiment, files)
        prepare(datasets.all, lambda _: None)
        study, store = resolve(experiment, datasets), Store(files)
        work(list(study.cells), SweepBackend(study, store, LocalCoordinator(), device=device, cpus_a_gpu=4.0))
        results = read_results(study.cells, store)
        assert all(result.done for result in results), f"cells are not done on {device}"
        found[device] = [row.accuracy for result in results for row in result.rows]
    apart = max(
        abs(a[name] - b[name]) for a, b in zip(found["cpu"], found[str(machine.device)], strict=True) for name in a
    )
    assert apart < 5, f"an accuracy is {apart:.2f} points off that of the CPU"
    return {"cells": len(study.cells), "points apart": apart}


def groups_of_workers_agree(machine: Machine) -> Found:
    """One worker over NCCL, two over gloo: both on this device."""
    expected, _ = trained(machine, steps=4)
    far = {}
    for backend, workers in (("nccl", 1), ("gloo", 2)):
        if backend == "nccl" and not machine.is_gpu:
            continue
        with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
            spawn(one_of_a_group, (backend, workers, folder, str(machine.device)), nprocs=workers)
            experts = [torch.load(f"{folder}/{rank}.pt") for rank in range(workers)]
        far[f"{workers} over {backend}"] = max(farthest(expert, expected) for expert in experts)
        assert far[f"{workers} over {backend}"] < 1e-4, f"{workers} over {backend}: {far} off"
    return far


def one_of_a_group(rank: int, backend: str, workers: int, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(backend, init_method=f"file://{folder}/start", rank=rank, world_size=workers)
    clip, weights = mini()
    share = PAIRS // workers

    def mine(first: int) -> Iterator[Any]:
        for batch in pairs(clip, 4, PAIRS)[first:]:
            some = slice(rank * share, (rank + 1) * share)
            yield type(batch)(batch.images[some], batch.texts[some])

    expert = train(clip, weights, mine, CONFIG, steps=4, device=device)
    torch.save(expert, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def every_technique_agrees_with_the_cpu(machine: Machine) -> Found:
    base, experts = world(4)
    far = {}
    for name in [name for name, row in merging.TECHNIQUES.items() if not row.needs_moments]:
        expected = merging.merge(base, experts, name)
        found = merging.merge(base, experts, name, device=str(machine.device))
        far[name] = max(
            float((found[k].double() - expected[k].double()).abs().max()) for k in found if found[k].numel()
        )
        assert near(found, expected, 1e-4), f"{name}: a weight is {far[name]:.1e} off"
    return far


def compiled_blocks_agree(machine: Machine) -> Found:
    if not machine.is_gpu:
        return {"skipped": "a compiler of the CPU takes minutes; the tests of precision have it"}
    notes: list[str] = []
    expert, _ = trained(machine)
    compiled, _ = trained(machine, compile_blocks=True, on_note=notes.append)
    assert not notes, notes[0]
    far = farthest(compiled, expert)
    assert math.isfinite(far), "a weight is not finite"
    assert far < 1e-4, f"a weight is {far:.1e} off"
    return {"far": far}


CHECKS: tuple[Callable[[Machine], Found], ...] = (
    training_agrees_with_the_cpu,
    float16_loses_no_more_steps_than_open_clip,
    resumes_from_a_step_checkpoint,
    a_step_waits_for_nothing,
    evaluation_agrees_with_the_cpu,
    memory_stays_flat,
    goes_on_after_it_was_out_of_memory,
    the_backend_runs_a_sweep,
    groups_of_workers_agree,
    every_technique_agrees_with_the_cpu,
    compiled_blocks_agree,
)
