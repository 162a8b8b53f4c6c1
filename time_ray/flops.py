"""Seconds from floating-point operations: what training and evaluation take where nobody has measured them."""

from typing import NamedTuple

from time_ray.core.model import ModelSpec
from time_ray.core.precision import Precision, evaluation_precision, training_precision
from time_ray.core.scoring import subset_size
from time_ray.rates import Rate
from time_ray.study import Study

TFLOPS = {"bf16": 400.0, "fp16": 400.0, "tf32": 200.0, "fp32": 40.0}  # assumed of an H100: 40 % and 60 % of its peaks


class Speed(NamedTuple):
    """TFLOP/s that a GPU sustains, in training in a precision and in evaluation."""

    training: float
    evaluation: float
    precision: Precision

    @classmethod
    def of(cls, study: Study, tflops: float | None = None) -> "Speed":
        """What is assumed of the slowest precision of any model, or what follows from TFLOP/s of training in it."""
        configs = [setting.trainings[0].config for setting in study.settings]
        trained = min((training_precision(config.precision, None) for config in configs), key=TFLOPS.__getitem__)
        scoring = [setting.scoring for setting in study.settings]
        scored = min((evaluation_precision(each.precision, None) for each in scoring), key=TFLOPS.__getitem__)
        training = tflops or TFLOPS[trained]
        return cls(training, training * TFLOPS[scored] / TFLOPS[trained], trained)


class Scored(NamedTuple):
    """What goes through a model when it is evaluated."""

    images: int
    texts: int  # prompts of all classes; where captions are retrieved, which only the data count, one an image


def scored(study: Study) -> Scored:
    """What one evaluation of the study's takes."""
    scoring, images, texts = study.experiment.evaluation, 0, 0
    for source in (*study.datasets.adaptation, *study.datasets.evaluation):
        classes = len(source.classes)
        of_subset = scoring.subset is not None and classes
        rows = subset_size(source.num_scored, classes, scoring.subset or 0.0) if of_subset else source.num_scored
        images += rows
        templates = len(source.templates if scoring.templates is None else scoring.templates)
        texts += rows if source.retrieves else classes * templates
    return Scored(images, texts)


def gflops(study: Study, spec: ModelSpec) -> Rate:
    """GFLOPs of a training step and of an evaluation. Raises UserError for a model that open_clip does not know."""
    from time_ray.clip.cost import operations  # imports torch, which a plan without FLOPs does not need

    batch_size, what = study.experiment.training.batch_size, scored(study)
    each = operations(spec.name, batch_size)
    return Rate(each.step, (what.images * each.image + what.texts * each.text) / batch_size)


def assumed_rate(study: Study, spec: ModelSpec, speed: Speed, gpus: float) -> Rate:
    """Seconds of a trial on so many GPUs, if its merges and its reading of data took no time."""
    work = gflops(study, spec)
    return Rate(work.step / (speed.training * 1e3 * gpus), work.evaluation / (speed.evaluation * 1e3 * gpus))
