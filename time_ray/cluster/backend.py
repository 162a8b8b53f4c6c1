"""The real Backend: experts and scores in the store, training and evaluation on this trial's workers."""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from time_ray import merging
from time_ray.clip import models
from time_ray.clip.device_names import device_names
from time_ray.clip.evaluate import outcomes
from time_ray.clip.optimizer import rate_at
from time_ray.clip.reestimate import reestimated
from time_ray.clip.train import train
from time_ray.cluster.checkpoints import StepCheckpoints
from time_ray.cluster.coordinator import Coordinator, Leases
from time_ray.cluster.out_of_memory import (
    gpu_bytes,
    telling,
    told,
    too_little_to_evaluate,
    too_little_to_merge,
    tried_again,
)
from time_ray.cluster.ranks import Ranks
from time_ray.core.errors import CellError
from time_ray.core.grid import Setting
from time_ray.core.loss_curve import LossPoint, kept_steps, written
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import Evaluation, Outcomes, Question, labelled, packed
from time_ray.core.recipe import Base, Merged, Patched, Recipe, Reestimated, Running, TaskTraining, Trained, describe
from time_ray.data.batch import Batch
from time_ray.data.batches import training_batches
from time_ray.data.dataset import Dataset
from time_ray.data.image_cache import ImageCache
from time_ray.data.questions import Asked, asked
from time_ray.data.subset import scored_rows
from time_ray.events import ExpertTrained, ModelEvaluated, Note, TrialEvent
from time_ray.loop import Accuracy
from time_ray.model_needs import needs_by_model, smaller
from time_ray.rates import note_gflops
from time_ray.realize import IncrementalMerges
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.version import provenance
from time_ray.weight_cache import WeightCache, Weights, num_bytes

MOST_IN_A_PASS = 16  # models: beyond that, decoding images costs next to nothing
_EVALUATION = "evaluation"
_MADE = (Merged, Running, Patched, Reestimated)  # from experts, whenever they are asked for


class SweepBackend:
    """See loop.Backend. With several workers every method is called on all of them, and all return the same.

    Only rank 0 reads and writes the store, merges, and speaks with the coordinator; all ranks train and evaluate.

    Args:
        study: The experiment, whose cells are run.
        store: Where weights and scores are kept.
        coordinator: Who says which trial makes what, and hears what happens.
        device: Where this worker trains and evaluates. Weights rest on the CPU.

    """

    def __init__(self, study: Study, store: Store, coordinator: Coordinator, *, device: str = "cpu") -> None:
        self.store = store
        self.coordinator = coordinator
        self.device = device
        self.ranks = Ranks()
        self.study = study
        self.cells = {cell.key: cell for cell in study.everything}
        self.hold_as(uuid.uuid4().hex)
        self._needs = needs_by_model(study.experiment)
        self._data = study.datasets.open()
        self._models = {setting.base.key: setting.model for setting in study.settings}
        self._clips: dict[ModelSpec, models.Clip] = {}  # by weights, too: a tag brings its own normalisation
        self._bases: dict[str, Weights] = {}
        self._cache = WeightCache(int(study.experiment.run.cache_gb * 1e9))
        self._merges = IncrementalMerges(self.load, self._read, self._cache)
        self._share = study.experiment.run.checkpoint_share
        folder = _pixels_folder(store.files)
        self._image_cache = ImageCache(folder, lambda text: self.emit(Note(text))) if folder else None
        self._seconds: dict[str, float] = {}
        self._curves: dict[str, list[LossPoint]] = {}  # of experts that are not in the store yet
        self._failed: dict[str, str] = {}  # by expert: what failed once fails again

    def hold_as(self, holder: str) -> None:
        """Leases are taken in this name from now on: a trial that is started again takes over its own."""
        self.holder = holder
        self._leases = Leases(self.coordinator, holder)

    def keep_only(self, settings: Iterable[Setting]) -> None:
        """Models of other settings are let go: a process that lives for a whole sweep meets all of them."""
        bases = {setting.base.key for setting in settings}
        specs = {self._models[key] for key in bases}
        self._bases = {key: weights for key, weights in self._bases.items() if key in bases}
        self._clips = {spec: clip for spec, clip in self._clips.items() if spec in specs}

    def load(self, base: Base) -> Weights:
        """See Backend."""
        if base.key not in self._bases:
            self._bases[base.key] = models.base_weights(self._models[base.key])
        return self._bases[base.key]

    def train(self, expert: Trained, start: Weights) -> Weights:
        """See Backend."""
        if expert.key in self._failed:
            raise CellError(self._failed[expert.key])
        make = partial(self._trained, expert, start)
        short = partial(self._too_little_to_train, expert)
        try:
            return tried_again(make, lambda: telling(make, short), short, self.ranks)
        except CellError as error:
            self._failed[expert.key] = str(error)  # not the error itself, whose frames hold the optimiser
            raise

    def _trained(self, expert: Trained, start: Weights) -> Weights:
        training = expert.training
        spec = self._models[_base_of(expert).key]
        clip, needs = self._clip(spec), self._needs[spec.label]
        curve = self._curves[expert.key] = []
        started = time.perf_counter()
        weights = train(
            clip,
            start,
            self._batches(training, clip, training.steps, needs.loaders),
            training.config,
            steps=training.steps,
            device=self.device,
            seed=training.seed,
            on_step=_recorder(training, curve),
            checkpoints=self._checkpoints(expert, start, curve),
            accumulate=needs.accumulate,
            recompute=needs.recompute,
        )
        self._seconds[expert.key] = time.perf_counter() - started
        return weights

    def _batches(
        self, training: TaskTraining, clip: models.Clip, steps: int, loaders: int
    ) -> Callable[[int], Iterator[Batch]]:
        """The slices of a training's batches that are this worker's."""
        return training_batches(
            training,
            self._data,
            resizing=clip.preprocessing.resizing,
            steps=steps,
            rank=self.ranks.rank,
            world_size=self.ranks.size,
            loaders=loaders,
        )

    def _checkpoints(self, expert: Trained, start: Weights, curve: list[LossPoint]) -> StepCheckpoints:
        with_moments = 3 * num_bytes(start)
        return StepCheckpoints(
            self.store, expert.key, self.ranks, share=self._share, num_bytes=with_moments, curve=curve
        )

    def merge(self, merge: Merged | Running) -> Weights | None:
        """See Backend."""
        started = time.perf_counter()
        weights = self.ranks.broadcast_tensors(lambda: telling(partial(self._merges, merge), too_little_to_merge))
        self._seconds[merge.key] = time.perf_counter() - started
        return weights

    def patch(self, recipe: Patched, weights: Weights) -> Weights:
        """See Backend."""
        started = time.perf_counter()
        found = merging.patch(self.load(recipe.base), weights, recipe.length)
        self._seconds[recipe.key] = self._merge_seconds(recipe.model) + time.perf_counter() - started
        return found

    def reestimate(self, recipe: Reestimated, weights: Weights) -> Weights:
        """See Backend."""
        spec = self._models[recipe.base.key]
        clip = self._clip(spec)
        started = time.perf_counter()
        stream = self._batches(recipe.newest.training, clip, recipe.batches, self._needs[spec.label].loaders)
        found = reestimated(clip, weights, stream(0), device=self.device)
        self._seconds[recipe.key] = self._merge_seconds(recipe.merge) + time.perf_counter() - started
        return found

    def evaluate(self, setting: Setting, models: Iterable[Weights]) -> Iterator[Evaluation]:
        """See Backend."""
        left = iter(models)
        while together := list(islice(left, self._in_a_pass(setting))):
            started = time.perf_counter()
            found = self._outcomes(setting, together)
            self._seconds[_EVALUATION] = (time.perf_counter() - started) / len(together)
            for weights, each in zip(together, found, strict=True):
                yield Evaluation(each, merging.distance(self.load(setting.base), weights))

    def _outcomes(self, setting: Setting, together: Sequence[Weights]) -> list[Outcomes]:
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
                loaders=self._needs[setting.model.label].loaders,
                cache=self._image_cache,
            )

        def in_two() -> list[Outcomes]:
            half = len(together) // 2
            if not half:
                return telling(in_a_pass, too_little_to_evaluate)
            return [*self._outcomes(setting, together[:half]), *self._outcomes(setting, together[half:])]

        return tried_again(in_a_pass, in_two, too_little_to_evaluate, self.ranks)

    def _too_little_to_train(self, expert: Trained, error: Exception) -> CellError:
        """Memory was short for a training: what would have to be set for it to fit."""
        spec = self._models[_base_of(expert).key]
        needs = self._needs[spec.label]
        return told(error, "in training", smaller(self.study.experiment, spec, needs, gpu_bytes(self.device)))

    def _in_a_pass(self, setting: Setting) -> int:
        """How many models one pass over the images may hold: as many as the cache of weights may."""
        size = num_bytes(self.load(setting.base))
        return max(1, min(MOST_IN_A_PASS, self._cache.limit // size))

    def has(self, recipe: Recipe) -> bool:
        """See Backend."""
        return self.ranks.broadcast(lambda: self.store.entry("weights", recipe.key) is not None)

    def get(self, recipe: Recipe) -> Weights | None:
        """See Backend."""
        return self.ranks.broadcast_tensors(lambda: self._read(recipe))

    def put(self, recipe: Recipe, weights: Weights) -> None:
        """See Backend."""
        self._cache.put(recipe.key, weights)
        self.ranks.broadcast(lambda: self._put(recipe, weights))

    def scores(self, setting: Setting, recipe: Recipe) -> Accuracy | None:
        """See Backend."""
        entry = self.ranks.broadcast(lambda: self.store.entry("scores", setting.scores_key(recipe)))
        return None if entry is None else dict(entry["accuracy"])  # type: ignore[call-overload]

    def record(self, setting: Setting, recipe: Recipe, evaluation: Evaluation) -> None:
        """See Backend. The scores of the base, which every cell has, also say what was asked."""
        spent = {"deploy": self._merge_seconds(recipe), "eval": self._seconds[_EVALUATION]}
        scores = {"accuracy": evaluation.accuracy, "distance": evaluation.distance}
        about = {"recipe": describe(recipe), **scores, "seconds": spent}
        arrays: dict[str, NDArray[Any]] = dict(packed(evaluation.outcomes))

        def put() -> None:
            if isinstance(recipe, Base):
                found = self._asked(setting)
                arrays.update(packed({question: one.select for question, one in found.items()}, "select"))
                arrays.update(labelled({question: one.labels for question, one in found.items()}))
                about["classes"] = {dataset.card.name: list(dataset.card.classes) for dataset in self._scored}
            self.store.put_scores(setting.scores_key(recipe), arrays, about)

        self.ranks.broadcast(put)
        self.emit(ModelEvaluated(spent["eval"]))

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
                self._leases.release(name)

    def emit(self, event: TrialEvent) -> None:
        """Those who watch the sweep will hear of the event. Called on all workers, it is told once."""
        if self.ranks.rank == 0:
            self.coordinator.emit(event)

    def _put(self, recipe: Recipe, weights: Weights) -> None:
        seconds = {"deploy": self._merge_seconds(recipe)}
        about = {"recipe": describe(recipe), "seconds": seconds, "made_by": provenance()}
        if isinstance(recipe, Trained):
            seconds = {"init": self._merge_seconds(recipe.start), "train": self._seconds.pop(recipe.key, 0.0)}
            about |= {"seconds": seconds, "curve": written(self._curves.pop(recipe.key, ()))}
            about["device"] = device_names(self.device, self.ranks.size)
        self.store.put(recipe.key, weights, about)
        if isinstance(recipe, Trained):
            self.store.drop_checkpoints(recipe.key)
            self.emit(ExpertTrained(recipe.key, recipe.training.steps, seconds["train"]))

    def _merge_seconds(self, recipe: Recipe) -> float:
        return self._seconds.get(recipe.key, 0.0) if isinstance(recipe, _MADE) else 0.0

    def _read(self, recipe: Recipe) -> Weights | None:
        held = self._cache.get(recipe.key)
        if held is None:
            held = self.store.get(recipe.key)
            if held is not None:
                self._cache.put(recipe.key, held)
        return held

    def _clip(self, spec: ModelSpec) -> models.Clip:
        if spec not in self._clips:
            self._clips[spec] = models.create(spec)
            if self.ranks.rank == 0:
                note_gflops(self.store, spec.name, self.study.experiment.training.batch_size)
        return self._clips[spec]


def _pixels_folder(files: Files) -> Path | None:
    """Where decoded images are kept: TIME_RAY_CACHE, else beside the weights if they lie on a disk; empty: nowhere."""
    named = os.environ.get("TIME_RAY_CACHE")
    if named is None:
        return Path(files.path("pixels")) if files.is_local else None
    return Path(named).expanduser().absolute() if named else None


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
