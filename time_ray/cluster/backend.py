"""The real Backend: experts and scores in the store, training and evaluation on this trial's workers."""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import torch
from numpy.typing import NDArray

from time_ray import merging
from time_ray.clip import models
from time_ray.clip.device_names import device_names
from time_ray.clip.evaluate import outcomes
from time_ray.clip.optimizer import rate_at
from time_ray.clip.reestimate import reestimated
from time_ray.clip.train import train
from time_ray.cluster.checkpoints import StepCheckpoints
from time_ray.cluster.clock import Clock, Part
from time_ray.cluster.coordinator import Coordinator, Leases
from time_ray.cluster.device_capacity import free_bytes, is_gpu, merging_bytes, peak_from_now_on, usable_bytes
from time_ray.cluster.out_of_memory import (
    telling,
    told,
    too_little_to_evaluate,
    too_little_to_merge,
    tried_again,
)
from time_ray.cluster.performance import TrainingPerformance, peak_memory
from time_ray.cluster.profiling import Profiler
from time_ray.cluster.ranks import Ranks
from time_ray.core.errors import CellError, UserError
from time_ray.core.grid import Setting
from time_ray.core.loss_curve import LossPoint, kept_steps, written
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import Evaluation, Outcomes, Question, labelled, packed
from time_ray.core.recipe import (
    MERGES,
    Base,
    GivenExpert,
    Kept,
    Merge,
    Moments,
    Patched,
    Recipe,
    Reestimated,
    TaskTraining,
    Trained,
    describe,
    describe_moments,
)
from time_ray.data.batch import Batch
from time_ray.data.batches import training_batches
from time_ray.data.dataset import Dataset
from time_ray.data.image_cache import ImageCache
from time_ray.data.questions import Asked, asked
from time_ray.data.subset import scored_rows
from time_ray.events import ExpertTrained, ModelEvaluated, Note, TrialEvent
from time_ray.loop import Accuracy
from time_ray.model_needs import needs_by_model, smaller
from time_ray.rates import note_gflops, read_gflops
from time_ray.realize import IncrementalMerges
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.version import provenance
from time_ray.weight_cache import Cache, Memory, Weights, num_bytes

MOST_IN_A_PASS = 16  # models: beyond that, decoding images costs next to nothing
_EVALUATION = "evaluation"
_MADE = (*MERGES, Patched, Reestimated)  # from experts, whenever they are asked for


class SweepBackend:
    """See loop.Backend. With several workers every method is called on all of them, and all return the same.

    Only rank 0 reads and writes the store, merges, and speaks with the coordinator; all ranks train and evaluate.

    Args:
        study: The experiment, whose cells are run.
        store: Where weights and scores are kept.
        coordinator: Who says which trial makes what, and hears what happens.
        device: Where this worker trains and evaluates. Weights rest on the CPU.
        cpus_a_gpu: CPUs of this machine for each of its GPUs; None: it has none.
        profiles: The folder on the storage for traces of each trial; None: none are made.

    """

    def __init__(
        self,
        study: Study,
        store: Store,
        coordinator: Coordinator,
        *,
        device: str = "cpu",
        cpus_a_gpu: float | None = None,
        profiles: str | None = None,
    ) -> None:
        self.store = store
        self.coordinator = coordinator
        self.device = device
        self._on_gpu = is_gpu(device)
        self._cpus_a_gpu = cpus_a_gpu
        self.ranks = Ranks()
        self.study = study
        self.cells = {cell.key: cell for cell in study.everything}
        self._profiles = profiles
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writing: tuple[str, ...] = ()  # keys of what was put last, until it is known to be there
        self._write: Future[None] | None = None  # on rank 0
        self._kept_leases: list[str] = []
        self.hold_as(uuid.uuid4().hex)
        self._needs = needs_by_model(study.experiment)
        self._data = study.datasets.open()
        self._models = {setting.base.key: setting.model for setting in study.settings}
        self._clips: dict[ModelSpec, models.Clip] = {}  # by weights, too: a tag brings its own normalisation
        self._gflops: dict[ModelSpec, float | None] = {}  # of a training step
        self._memory = Memory(int(study.experiment.run.cache_gb * 1e9))
        self._bases = Cache[Weights](self._memory, num_bytes, lasting=True)
        self._cache = Cache[Weights](self._memory, num_bytes)
        folds = Cache[merging.Fold](self._memory, attrgetter("num_bytes"))
        self._merges = IncrementalMerges(self.load, self._read, self._cache, folds)
        self._share = study.experiment.run.checkpoint_share
        folder = _pixels_folder(store.files)
        self._image_cache = ImageCache(folder, lambda text: self.emit(Note(text))) if folder else None
        self._seconds: dict[str, float] = {}
        self._spent_each: Mapping[Part, float] = {}  # on a model of the newest pass
        self._performance: dict[str, dict[str, float]] = {}  # of experts that are not in the store yet
        self._curves: dict[str, list[LossPoint]] = {}  # of experts that are not in the store yet
        self._needed = {key: moments for cell in study.everything for key, moments in cell.moments().items()}
        self._moments: dict[str, Weights] = {}  # on rank 0, of experts that are not in the store yet
        self._failed: dict[str, str] = {}  # by expert: what failed once fails again

    def hold_as(self, holder: str) -> None:
        """Leases are taken in this name from now on: a trial that is started again takes over its own.

        Time counts anew, in this thread: Ray Tune gives each trial one of its own.
        """
        self.clock = Clock()
        self.holder = holder
        self._leases = Leases(self.coordinator, holder)
        self._profiler = None
        if self._profiles is not None and self.ranks.rank == 0:
            self._profiler = Profiler(self.store.files, self._profiles, holder, lambda text: self.emit(Note(text)))

    def keep_only(self, settings: Iterable[Setting]) -> None:
        """Models of other settings are let go: a process that lives for a whole sweep meets all of them."""
        bases = {setting.base.key for setting in settings}
        specs = {self._models[key] for key in bases}
        self._bases.keep_only(bases)
        self._clips = {spec: clip for spec, clip in self._clips.items() if spec in specs}

    def load(self, base: Base) -> Weights:
        """See Backend."""
        found = self._bases.get(base.key)
        if found is None:
            found = models.base_weights(self._models[base.key])
            self._bases.put(base.key, found)
        return found

    def train(self, expert: Trained, start: Weights) -> Weights:
        """See Backend."""
        if expert.key in self._failed:
            raise CellError(self._failed[expert.key])
        if expert.training.given is not None:
            return self._given(expert, expert.training.given)
        make = partial(self._trained, expert, start)
        short = partial(self._too_little_to_train, expert)
        try:
            return tried_again(make, lambda: telling(make, short), short, self.ranks)
        except CellError as error:
            self._failed[expert.key] = str(error)  # not the error itself, whose frames hold the optimiser
            raise

    def _given(self, expert: Trained, given: GivenExpert) -> Weights:
        """Every worker reads the file, as it does that of the base."""
        spec = self._models[_base_of(expert).key]
        started = time.perf_counter()
        try:
            with self.clock.at("data"):
                weights = models.expert_weights(spec, given)
        except UserError as error:
            raise CellError("; ".join(error.faults)) from error
        self._seconds[expert.key] = time.perf_counter() - started
        return weights

    def _trained(self, expert: Trained, start: Weights) -> Weights:
        training = expert.training
        spec = self._models[_base_of(expert).key]
        clip, needs = self._clip(spec), self._needs[spec.label]
        curve = self._curves[expert.key] = []
        batches = self._batches(training, spec, training.steps)
        performance = TrainingPerformance(self.clock, self.device)
        started = time.perf_counter()
        with self.clock.at("step"), self._traced("training", spec) as on_batch:
            weights = train(
                clip,
                start,
                lambda first: performance.seen(batches(first), on_batch),
                training.config,
                steps=training.steps,
                device=self.device,
                seed=training.seed,
                on_step=_recorder(training, curve),
                on_note=lambda text: self.emit(Note(f"{spec.label}: {text}")),
                on_end=self._moments_keeper(expert),
                checkpoints=self._checkpoints(expert, start, curve),
                accumulate=needs.accumulate,
                recompute=needs.recompute,
                compile_blocks=needs.compile,
            )
        self._seconds[expert.key] = time.perf_counter() - started
        self._performance[expert.key] = performance.found(training.config, self._gflops[spec], self.ranks.size)
        return weights

    def _moments_keeper(self, expert: Trained) -> Callable[[Weights], None] | None:
        """Takes the second moments of a training, where they are needed; they are the same on every worker."""
        if expert.key not in self._needed or self.ranks.rank != 0:
            return None
        return partial(self._moments.__setitem__, expert.key)

    def _loaders(self, spec: ModelSpec) -> int:
        """Threads that make coming batches."""
        return self._needs[spec.label].loaders_on(self._cpus_a_gpu if self._on_gpu else None)

    def _batches(self, training: TaskTraining, spec: ModelSpec, steps: int) -> Callable[[int], Iterator[Batch]]:
        """The slices of a training's batches that are this worker's."""
        return training_batches(
            training,
            self._data,
            resizing=self._clip(spec).preprocessing.resizing,
            steps=steps,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
            loaders=self._loaders(spec),
            pinned=self._on_gpu,
        )

    def _checkpoints(self, expert: Trained, start: Weights, curve: list[LossPoint]) -> StepCheckpoints:
        models = 3 if expert.training.config.average_within is None else 4  # weights, moments, and a mean of weights
        return StepCheckpoints(
            self.store,
            expert.key,
            self.ranks,
            share=self._share,
            num_bytes=models * num_bytes(start),
            curve=curve,
            clock=self.clock,
        )

    def merge(self, merge: Merge) -> Weights | None:
        """See Backend."""
        started = time.perf_counter()
        with self.clock.at("merge"):
            weights = self._everywhere(merge, lambda: telling(lambda: self._merged(merge), too_little_to_merge))
        self._seconds[merge.key] = time.perf_counter() - started
        return weights

    def _merged(self, merge: Merge) -> Weights | None:
        """On the GPU if it has room; on the CPU if it turns out that it has none."""
        try:
            return self._merges(merge, self._with_room(merge.base))
        except torch.OutOfMemoryError:  # what a fold had taken in is let go with it, and read again
            return self._merges(merge, "cpu")

    def _with_room(self, base: Base) -> str:
        free = free_bytes(self.device)
        return "cpu" if free is None or free < merging_bytes(self.load(base)) else self.device

    def patch(self, recipe: Patched, weights: Weights) -> Weights:
        """See Backend."""
        started = time.perf_counter()
        with self.clock.at("merge"):
            found = merging.patch(self.load(recipe.base), weights, recipe.length)
        self._seconds[recipe.key] = self._merge_seconds(recipe.model) + time.perf_counter() - started
        return found

    def reestimate(self, recipe: Reestimated, weights: Weights) -> Weights:
        """See Backend."""
        spec = self._models[recipe.base.key]
        clip = self._clip(spec)
        started = time.perf_counter()
        stream = self._batches(recipe.newest.training, spec, recipe.batches)
        with self.clock.at("merge"):
            found = reestimated(clip, weights, stream(0), device=self.device)
        self._seconds[recipe.key] = self._merge_seconds(recipe.merge) + time.perf_counter() - started
        return found

    def evaluate(self, setting: Setting, models: Iterable[Weights]) -> Iterator[Evaluation]:
        """See Backend."""
        left = iter(models)
        while together := list(islice(left, self._in_a_pass(setting))):
            started = time.perf_counter()
            peak_from_now_on(self.device)
            with self.clock.at("evaluation"), self._traced("evaluation", setting.model) as on_batch:
                found = self._outcomes(setting, together, on_batch)
            self._seconds[_EVALUATION] = (time.perf_counter() - started) / len(together)
            self._performance[_EVALUATION] = peak_memory("eval", self.device)
            self._spent_each = {part: spent / len(together) for part, spent in self.clock.taken().items()}
            for weights, each in zip(together, found, strict=True):
                yield Evaluation(each, merging.distance(self.load(setting.base), weights))

    def _outcomes(self, setting: Setting, together: Sequence[Weights], on_batch: Callable[[], None]) -> list[Outcomes]:
        """What each model has right: in one pass over the images, or in two where memory is short for all of them."""

        def in_a_pass() -> list[Outcomes]:
            return outcomes(
                self._clip(setting.model),
                together,
                self._scored,
                scoring=setting.scoring,
                seed=setting.seed,
                device=self.device,
                shard=(self.ranks.rank, self.ranks.size),
                loaders=self._loaders(setting.model),
                cache=self._image_cache,
                on_batch=on_batch,
            )

        def in_two() -> list[Outcomes]:
            half = len(together) // 2
            if not half:
                return telling(in_a_pass, too_little_to_evaluate)
            first, second = together[:half], together[half:]
            return [*self._outcomes(setting, first, on_batch), *self._outcomes(setting, second, on_batch)]

        return tried_again(in_a_pass, in_two, too_little_to_evaluate, self.ranks)

    def _too_little_to_train(self, expert: Trained, error: Exception) -> CellError:
        """Memory was short for a training: what would have to be set for it to fit."""
        spec = self._models[_base_of(expert).key]
        needs = self._needs[spec.label]
        return told(error, "in training", smaller(self.study.experiment, spec, needs, usable_bytes(self.device)))

    def _traced(self, stage: str, spec: ModelSpec) -> AbstractContextManager[Callable[[], None]]:
        """Gives what is to be called before every batch."""
        return nullcontext(lambda: None) if self._profiler is None else self._profiler.traced(stage, spec.name)

    def _in_a_pass(self, setting: Setting) -> int:
        """How many models one pass over the images may hold: as many as the memory of every worker may.

        All of them lie on the device at once, beside what the pass makes of a batch of images.
        """
        size = num_bytes(self.load(setting.base))
        fit = self._memory.limit // size
        free = free_bytes(self.device)
        if free is not None:
            fit = min(fit, free // 2 // size)
        return self.ranks.least(max(1, min(MOST_IN_A_PASS, fit)))

    def has(self, recipe: Kept) -> bool:
        """See Backend. What is being written counts: nothing follows from it before it is there."""
        if recipe.key in self._writing:
            return True
        with self.clock.at("store"):
            return self.ranks.broadcast(lambda: self.store.entry("weights", recipe.key) is not None)

    def get(self, recipe: Recipe) -> Weights | None:
        """See Backend."""
        return self._everywhere(recipe, lambda: self._read(recipe))

    def _everywhere(self, recipe: Recipe, find: Callable[[], Weights | None]) -> Weights | None:
        """What rank 0 finds, on every rank. Each keeps it, so that it is not sent again while all have it."""
        weights = self.ranks.broadcast_tensors(find, self._cache.get(recipe.key))
        if weights is not None:
            self._cache.put(recipe.key, weights)
        return weights

    def put(self, recipe: Recipe, weights: Weights) -> None:
        """See Backend. They are written beside what comes next, one model at a time: see `settle`."""
        self.settle()
        self._cache.put(recipe.key, weights)
        moments = self._needed.get(recipe.key)
        self._writing = (recipe.key,) if moments is None else (moments.key, recipe.key)
        about = self._about(recipe)
        if self.ranks.rank == 0:
            left = () if moments is None else ((moments, self._moments.pop(recipe.key)),)
            for of, tensors in left:
                self._cache.put(of.key, tensors)
            self._write = self._writer.submit(self._put, recipe, weights, about, left)

    def settle(self) -> None:
        """The weights that were put last are in the store. Called on all workers.

        Raises:
            StoreError: They could not be written.

        """
        if not self._writing:
            return
        try:
            with self.clock.at("store"):
                self.ranks.broadcast(self._written)
        finally:
            self._release_kept()

    def give_up(self) -> None:
        """Nothing is being written by this worker, and no lease kept for it. Other workers may be gone."""
        with suppress(Exception):  # why the trial ends is known
            self._written()
        self._release_kept()

    def _written(self) -> None:
        write, self._write = self._write, None
        if write is not None:
            write.result()

    def _release_kept(self) -> None:
        """The leases of what is not being written any more are given up."""
        self._writing = ()
        while self._kept_leases:
            self._leases.release(self._kept_leases.pop())

    def scores(self, setting: Setting, recipe: Recipe) -> Accuracy | None:
        """See Backend."""
        with self.clock.at("store"):
            entry = self.ranks.broadcast(lambda: self.store.entry("scores", setting.scores_key(recipe)))
        return None if entry is None else dict(entry["accuracy"])  # type: ignore[call-overload]

    def record(self, setting: Setting, recipe: Recipe, evaluation: Evaluation) -> None:
        """See Backend. The scores of the base, which every cell has, also say what was asked."""
        self.settle()  # scores are of weights that are there, or whose experts are
        seconds = {"deploy": self._merge_seconds(recipe), "eval": self._seconds[_EVALUATION]}
        about = {
            "recipe": describe(recipe),
            "accuracy": evaluation.accuracy,
            "distance": evaluation.distance,
            "seconds": seconds,
            "spent": _summed(self._spent_each, self.clock.taken()),
            "performance": self._performance[_EVALUATION],
        }
        arrays: dict[str, NDArray[Any]] = dict(packed(evaluation.outcomes))

        def put() -> None:
            if isinstance(recipe, Base):
                found = self._asked(setting)
                arrays.update(packed({question: one.select for question, one in found.items()}, "select"))
                arrays.update(labelled({question: one.labels for question, one in found.items()}))
                about["classes"] = {dataset.card.name: list(dataset.card.classes) for dataset in self._scored}
            self.store.put_scores(setting.scores_key(recipe), arrays, about)

        with self.clock.at("store"):
            self.ranks.broadcast(put)
        self.emit(ModelEvaluated(seconds["eval"]))

    def _asked(self, setting: Setting) -> dict[Question, Asked]:
        """What the test images are asked."""
        found: dict[Question, Asked] = {}
        for dataset in self._scored:
            found |= asked(
                dataset, scored_rows(dataset.card, dataset.split("test"), setting.scoring.subset, setting.seed)
            )
        return found

    @property
    def _scored(self) -> tuple[Dataset, ...]:
        return (*self._data.adaptation, *self._data.evaluation)

    @contextmanager
    def lease(self, name: str) -> Iterator[bool]:
        """See Backend."""
        ours = self.ranks.broadcast(lambda: self._leases.acquire(name))
        try:
            yield ours
        finally:
            if ours and self.ranks.rank == 0:
                if name in self._writing:
                    self._kept_leases.append(name)  # until it is there
                else:
                    self._leases.release(name)

    def emit(self, event: TrialEvent) -> None:
        """Those who watch the sweep will hear of the event. Called on all workers, it is told once."""
        if self.ranks.rank == 0:
            self.coordinator.emit(event)

    def _about(self, recipe: Recipe) -> dict[str, Any]:
        """What the entry of weights says beside them."""
        about = {"recipe": describe(recipe), "made_by": provenance()}
        if not isinstance(recipe, Trained):
            return {**about, "seconds": {"deploy": self._merge_seconds(recipe)}}
        return {
            **about,
            "seconds": {"init": self._merge_seconds(recipe.start), "train": self._seconds.pop(recipe.key, 0.0)},
            "spent": _summed(self.clock.taken()),
            "performance": self._performance.pop(recipe.key, {}),
            "curve": written(self._curves.pop(recipe.key, ())),
            "device": device_names(self.device, self.ranks.size),
        }

    def _put(
        self, recipe: Recipe, weights: Weights, about: Mapping[str, Any], left: Sequence[tuple[Moments, Weights]]
    ) -> None:
        """In the writer's thread: other trials go on with an expert as soon as it is there, after what it left."""
        for of, tensors in left:
            self.store.put(of.key, tensors, {"recipe": describe_moments(of), "made_by": about["made_by"]})
        self.store.put(recipe.key, weights, about)
        if isinstance(recipe, Trained):
            self.store.drop_checkpoints(recipe.key)
            self.emit(ExpertTrained(recipe.key, recipe.training.steps, about["seconds"]["train"]))

    def _merge_seconds(self, recipe: Recipe) -> float:
        return self._seconds.get(recipe.key, 0.0) if isinstance(recipe, _MADE) else 0.0

    def _read(self, recipe: Kept) -> Weights | None:
        held = self._cache.get(recipe.key)
        if held is None:
            with self.clock.at("store"):
                if recipe.key in self._writing:
                    self._written()
                held = self.store.get(recipe.key)
            if held is not None:
                self._cache.put(recipe.key, held)
        return held

    def _clip(self, spec: ModelSpec) -> models.Clip:
        if spec not in self._clips:
            self._clips[spec] = models.create(spec)
            self._gflops[spec] = self.ranks.broadcast(lambda: self._counted_gflops(spec))
        return self._clips[spec]

    def _counted_gflops(self, spec: ModelSpec) -> float | None:
        batch_size = self.study.experiment.training.batch_size
        note_gflops(self.store, spec.name, batch_size)
        return read_gflops(self.store, spec.name, batch_size)


def _pixels_folder(files: Files) -> Path | None:
    """Where decoded images are kept: TIME_RAY_CACHE, else beside the weights if they lie on a disk; empty: nowhere."""
    named = os.environ.get("TIME_RAY_CACHE")
    if named is None:
        return Path(files.path("pixels")) if files.is_local else None
    return Path(named).expanduser().absolute() if named else None


def _summed(*spent: Mapping[Part, float]) -> dict[Part, float]:
    """Seconds by part; what took none is left out."""
    sums = {part: sum(each.get(part, 0.0) for each in spent) for part in get_args(Part)}
    return {part: seconds for part, seconds in sums.items() if seconds > 0}


def _recorder(training: TaskTraining, curve: list[LossPoint]) -> Callable[[int, float], None]:
    """Hears every loss, of this worker's slice, and appends some of them to the curve."""
    kept, config = kept_steps(training.steps), training.config

    def hear(step: int, loss: float) -> None:
        if step in kept:
            curve.append(LossPoint(step, loss, (config.lr or 0.0) * rate_at(step - 1, training.steps, config)))

    return hear


def _base_of(recipe: Recipe) -> Base:
    while not isinstance(recipe, Base):
        recipe = recipe.start if isinstance(recipe, Trained) else recipe.base
    return recipe
