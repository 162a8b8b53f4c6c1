"""Seconds of a training step and of an evaluation of every model, timed on this machine before any sweep.

What is timed is what a trial does, on the experiment's own data: loading batches and training on them, decoding and
encoding some test images, encoding some prompts, and merging two experts with every technique. Weights are random:
they do not change how long anything takes.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from time_ray import merging
from time_ray.clip.arithmetic import Arithmetic
from time_ray.clip.features import image_features, text_features
from time_ray.clip.models import Clip, create
from time_ray.clip.threads import torch_threads
from time_ray.clip.train import train
from time_ray.core.grid import Setting
from time_ray.core.plan import NOTHING
from time_ray.core.precision import evaluation_precision
from time_ray.core.recipe import MERGES, OuterStep
from time_ray.core.training import Training
from time_ray.data.batches import training_batches
from time_ray.data.dataset import Data, Dataset
from time_ray.data.image_cache import ImageBlock, ImageCache
from time_ray.data.images import Decoded, fits_in_memory
from time_ray.data.sources import prepare
from time_ray.flops import scored
from time_ray.model_needs import Needs, needs_by_model
from time_ray.opened import Opened
from time_ray.rates import Rate, write_timed
from time_ray.study import Study
from time_ray.workload import TrialNeeds, workload

WARM_UP_STEPS = 3
MOST_STEPS, SECONDS = 40, 5.0  # of a timed training, whichever comes first
BATCH = 256  # images, and prompts, that an evaluation takes at a time

Weights = Mapping[str, Tensor]


def measure(opened: Opened, say: Callable[[str], None]) -> dict[str, Rate]:
    """Seconds of a step and of an evaluation of every model, which plans on this storage know from now on.

    Raises:
        UserError: a model or the data cannot be used.
        CellError: an image is broken, or this machine lacks the precision of a model.
        StoreError: the storage cannot be written.

    """
    study = opened.study
    prepare(study.datasets.all, say)
    data, needs, rates = study.datasets.open(), needs_by_model(study.experiment), dict[str, Rate]()
    for label, setting in {setting.model.label: setting for setting in study.settings}.items():
        device = _device(needs[label])
        say(f"timing {label} on {_name(device)}")
        with torch_threads(needs[label].threads):
            rate = _Timed(study, setting, data, device, needs[label]).rate()
        rates[label] = rate
        write_timed(opened.store, study.everything, {label: rate}, _name(device))
    return rates


class _Timed:
    """One model of a study while it is timed."""

    def __init__(self, study: Study, setting: Setting, data: Data, device: torch.device, need: Needs) -> None:
        self.study = study
        self.setting = setting
        self.data = data
        self.device = device
        self.need = need
        self.loaders = need.loaders_on(_cpus_a_gpu() if device.type == "cuda" else None)
        self.clip = create(setting.model)
        self.cells = [cell for cell in study.everything if cell.setting.model == setting.model]

    def rate(self) -> Rate:
        start = {name: tensor.clone() for name, tensor in self.clip.module.state_dict().items()}
        given = self.setting.trainings[0].given is not None
        step, expert = (0.0, start) if given else self._training(start)
        return Rate(step, self._evaluation(start) / max(1, self.need.workers) + self._merge(start, expert))

    def _training(self, start: Weights) -> tuple[float, Weights]:
        """Seconds of a step, with its share of what a training takes besides steps; and what was trained."""
        _, a_step, _ = self._trained(start, WARM_UP_STEPS)
        steps = max(WARM_UP_STEPS + 1, min(MOST_STEPS, int(SECONDS / a_step)))
        total, a_step, expert = self._trained(start, steps)
        trainings = [training for cell in self.cells for training in cell.setting.trainings]
        of_a_task = sum(training.steps for training in trainings) / len(trainings)
        return a_step + max(0.0, total - steps * a_step) / of_a_task, expert

    def _trained(self, start: Weights, steps: int) -> tuple[float, float, Weights]:
        """Seconds of such a training, seconds of a step once it runs, and the expert."""
        need, training, marks = self.need, self.setting.trainings[-1], list[float]()
        began = time.perf_counter()
        expert = train(
            self.clip,
            start,
            training_batches(
                training,
                self.data,
                resizing=self.clip.preprocessing.resizing,
                steps=steps,
                world_size=max(1, need.workers),
                loaders=self.loaders,
                pinned=self.device.type == "cuda",
            ),
            _gentle(training.config),
            steps=steps,
            device=self.device,
            accumulate=need.accumulate,
            recompute=need.recompute,
            compile_blocks=need.compile,
            on_step=lambda _step, _loss: marks.append(time.perf_counter()),
        )
        total = time.perf_counter() - began
        a_step = (marks[-2] - marks[0]) / (len(marks) - 2)  # a loss is read in the step after it, the last one early
        return total, a_step, expert

    def _evaluation(self, weights: Weights) -> float:
        """Seconds of one model of a pass over all test images: decoding is shared by the models of a pass."""
        clip, what = self.clip.holding(weights, self.device), scored(self.study)
        arithmetic = Arithmetic(
            evaluation_precision(self.setting.scoring.precision, None), self.device, "evaluation.precision"
        )
        with torch.inference_mode(), arithmetic.forward():
            decoding, encoding = self._images(clip)
            prompts = self._prompts(clip)
        return what.images * (decoding / self._in_a_pass() + encoding) + what.texts * prompts

    def _images(self, clip: Clip) -> tuple[float, float]:
        """Seconds of an image: until it is decoded, as in every evaluation but the first, and in a model."""
        datasets = [*self.data.adaptation, *self.data.evaluation]
        dataset = max(datasets, key=lambda dataset: len(dataset.split("test")))
        rows = np.arange(min(BATCH, len(dataset.split("test"))), dtype=np.int64)
        images = Decoded(dataset.split("test"), clip.preprocessing.resizing, threads=max(1, self.loaders))
        with tempfile.TemporaryDirectory() as folder:
            read = self._reader(images, dataset, rows, Path(folder))
            decoding = _seconds(read, self.device)
            pixels = torch.from_numpy(np.array(read())).to(self.device)
        return decoding / len(rows), _seconds(lambda: image_features(clip, pixels), self.device) / len(rows)

    def _reader(self, images: Decoded, dataset: Dataset, rows: np.ndarray, folder: Path) -> Callable[[], np.ndarray]:
        """Reads the images as an evaluation does: what is too large for memory is kept on a local disk."""
        if fits_in_memory(len(dataset.split("test")), self.clip.preprocessing.resizing.size):
            return lambda: images.block(rows)
        cache, block = (
            ImageCache(folder),
            ImageBlock(dataset.card.digest, "test", self.clip.preprocessing.resizing, rows),
        )
        return lambda: cache.get(block, images.block)

    def _prompts(self, clip: Clip) -> float:
        """Seconds of a prompt."""
        cards = [dataset.card for dataset in (*self.data.adaptation, *self.data.evaluation)]
        templates = self.study.experiment.evaluation.templates
        texts = [t.format(name) for card in cards for name in card.classes for t in templates or card.templates][:BATCH]
        texts = texts or ["a photo of something"] * BATCH  # captions are retrieved, and about as long
        return _seconds(lambda: text_features(clip, clip.tokenize(texts)), self.device) / len(texts)

    def _in_a_pass(self) -> float:
        """Models that a trial evaluates together, on average."""
        nothing = TrialNeeds(Rate(0.0, 0.0), 1.0, 1)
        trials = workload(self.cells, {self.setting.model.label: nothing}, NOTHING).trials
        passes = [len(stage) for trial in trials for stage in trial.stages if not stage[0].read]
        return sum(passes) / len(passes)

    def _merge(self, base: Weights, expert: Weights) -> float:
        """Seconds of a merge for each model that is scored: some are experts as they are."""
        deployed = {step.deployed.key: step.deployed for cell in self.cells for step in cell.walk()}
        merges = [recipe for recipe in deployed.values() if isinstance(recipe, MERGES)]
        if not merges:
            return 0.0
        steps = [merge.merge if isinstance(merge, OuterStep) else merge for merge in merges]
        techniques = {step.technique.key: step.technique for step in steps}
        seconds = []
        for technique in techniques.values():
            params: dict[str, Any] = dict(technique.params)
            if technique.needs_moments:
                moments = {name: tensor.square() for name, tensor in expert.items()}
                act = partial(_by_moments, technique.name, [base, expert], [moments, moments], params)
            else:
                act = partial(_one_more, merging.fold(technique.name, base, **params), expert)
            seconds.append(_seconds(act, torch.device("cpu")))
        return sum(seconds) / len(seconds) * len(merges) / len(deployed)


def _one_more(fold: merging.Fold, expert: Weights) -> None:
    fold.add(expert, id=str(len(fold.experts) + 1))
    fold.result()


def _by_moments(name: str, models: Sequence[Weights], moments: Sequence[Weights], params: Mapping[str, Any]) -> None:
    merging.merge_by_moments(name, models, moments, params)


def _gentle(config: Training) -> Training:
    """The same work at a rate at which random weights do not diverge."""
    return config.model_copy(update={"lr": 1e-6})


def _seconds(act: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """The least seconds of several, after one that does not count."""
    act()
    spent = []
    for _ in range(times):
        _wait(device)
        began = time.perf_counter()
        act()
        _wait(device)
        spent.append(time.perf_counter() - began)
    return min(spent)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(need: Needs) -> torch.device:
    """Where a worker would train if it ran on this machine."""
    return torch.device("cuda" if need.workers and need.gpus != 0 and torch.cuda.is_available() else "cpu")


def _cpus_a_gpu() -> float:
    return (os.cpu_count() or 1) / torch.cuda.device_count()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"a CPU of {os.uname().nodename}"
