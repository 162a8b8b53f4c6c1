"""What the workers of each model need: how many, on what, with how much memory. Most follows from what is written."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from time_ray.clip import mini
from time_ray.core.errors import UserError, unknown
from time_ray.core.experiment import Experiment, WorkerRun
from time_ray.core.model import ModelSpec
from time_ray.core.precision import AskedPrecision, evaluation_precision, lacks, training_precision
from time_ray.core.quantities import size
from time_ray.core.scoring import Scoring
from time_ray.core.training import Training

# GB of each type, by Ray's names; the smaller size where a name means two
ACCELERATOR_GB = {
    "P100": 16,
    "V100": 16,
    "T4": 16,
    "A10G": 24,
    "L4": 24,
    "A100": 40,
    "A100-40G": 40,
    "L40S": 48,
    "A100-80G": 80,
    "H100": 80,
    "H20": 96,
    "RTX-PRO-6000": 96,
    "H200": 141,
    "B200": 180,
}
USABLE = 0.9  # of an accelerator's memory: the rest is CUDA's own, and gaps between blocks
MOST_LOADERS = 6  # that are taken without being asked for
LESS = 0.75  # of what was too much: what may fit where nobody knows how much is there
MOST_WORKERS = 8  # that are taken without being asked for: GPUs of one machine


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a trial of a model holds, and how it trains.

    Attributes:
        workers: Of a trial; 0: it runs in this process.
        gpus: Of a worker; None: one if the cluster has any.
        accelerator: The type of GPU, by Ray's name; None: any.
        threads: CPU threads of a worker.
        loaders: Threads of a worker that make coming batches; None: as many as `loaders_on` says.
        accumulate: Micro-batches of a step.
        recompute: Whether activations are computed again instead of kept.
        compile: Whether blocks run as torch.compile makes them.

    """

    workers: int
    gpus: float | None
    accelerator: str | None
    threads: int
    loaders: int | None
    accumulate: int
    recompute: bool
    compile: bool

    def loaders_on(self, cpus_a_gpu: float | None) -> int:
        """Threads that make coming batches, on a node with so many CPUs for each of its GPUs; None: on CPUs.

        One decodes about a thousand images a second, of which a GPU takes two to three thousand.
        """
        if self.loaders is not None:
            return self.loaders
        return 1 if cpus_a_gpu is None else max(1, min(MOST_LOADERS, int(cpus_a_gpu) - self.threads))


def model_needs(experiment: Experiment, spec: ModelSpec) -> Needs:
    """What a trial of the model needs: what the experiment says, and for what it leaves open, what memory wants.

    Where the accelerator is named and its memory known, these are the fewest workers, and then the fewest
    micro-batches, with which a worker's training fits; else one of each.

    Raises:
        UserError: the weights alone, with gradients and optimiser, are larger than that memory.

    """
    said = experiment.run.of(spec)
    there = capacity(said)
    if there is not None and trained_bytes(experiment, spec) > there:
        raise UserError(_too_large(experiment, spec, said, there))
    if there is None or None not in (said.workers, said.accumulate):
        return _needs(said, 1, 1)
    for way in _ways(experiment, said, spec):
        found = _needs(said, *way)
        if training_bytes(experiment, spec, found) <= there:
            break
    return found


def needs_by_model(experiment: Experiment) -> dict[str, Needs]:
    """What each model of the experiment needs, by label. Raises UserError with every fault of `model_needs`."""
    faults, found = list[str](), dict[str, Needs]()
    for spec in experiment.model:
        try:
            found[spec.label] = model_needs(experiment, spec)
        except UserError as error:
            faults += error.faults
    UserError.unless_none(faults)
    return found


def device_of(needs: Needs) -> str:
    """What a worker trains on, as people read it."""
    if needs.gpus == 0 or not needs.workers:
        return "on the CPU"
    if needs.gpus is None:
        return "a GPU if there is one"
    return f"{needs.gpus:g} GPU{f' of type {needs.accelerator}' if needs.accelerator else ''}"


def settled(experiment: Experiment) -> Experiment:
    """The experiment with the needs of every model written into it: whoever reads it need not find them again."""
    by_model = {label: WorkerRun(**asdict(needs)) for label, needs in needs_by_model(experiment).items()}
    return experiment.model_copy(update={"run": experiment.run.model_copy(update={"by_model": by_model})})


def settled_training(experiment: Experiment, spec: ModelSpec) -> Training:
    """How the model is trained, in the precision that its workers' accelerator is fast in where that is left open."""
    training = experiment.training
    precision = training_precision(training.precision, experiment.run.of(spec).accelerator)
    return training.model_copy(update={"precision": precision})


def settled_scoring(experiment: Experiment, spec: ModelSpec) -> Scoring:
    """How the model is scored, in the precision that follows from its workers' accelerator where it is left open."""
    scoring = experiment.evaluation
    precision = evaluation_precision(scoring.precision, experiment.run.of(spec).accelerator)
    return scoring.model_copy(update={"precision": precision})


def training_bytes(experiment: Experiment, spec: ModelSpec, needs: Needs) -> int:
    """Bytes that training takes of a worker's device: its share of a batch goes through the model in micro-batches."""
    pairs = math.ceil(experiment.training.batch_size / (max(1, needs.workers) * needs.accumulate))
    half = settled_training(experiment, spec).precision in {"bf16", "fp16"}
    return trained_bytes(experiment, spec) + _activation_bytes(spec.name, pairs, half=half, recompute=needs.recompute)


def trained_bytes(experiment: Experiment, spec: ModelSpec) -> int:
    """Bytes of weights, gradients and the optimiser's two moments, all float32, and of a mean where one is kept."""
    models = 4 if experiment.training.average_within is None else 5
    return models * weight_bytes(spec)


def weight_bytes(spec: ModelSpec) -> int:
    """Bytes of the model's weights in float32."""
    if spec.name in mini.MODELS:
        return mini.MODELS[spec.name].num_bytes
    from time_ray.clip.models import num_bytes

    return num_bytes(spec)


def smaller(experiment: Experiment, spec: ModelSpec, needs: Needs, there: float | None) -> str:
    """What to set so that training fits that did not, and about how much a worker takes then.

    Args:
        experiment: Of the training.
        spec: The model.
        needs: With which memory was short.
        there: Bytes that a worker has; None: nobody knows.

    """
    now = training_bytes(experiment, spec, needs)
    limit = min(LESS * now, there or math.inf)
    for way in _savings(experiment, spec, needs):
        found = training_bytes(experiment, spec, way)
        if found <= limit:
            keys = [key for key in ("workers", "accumulate", "recompute") if getattr(way, key) != getattr(needs, key)]
            words = " and ".join(f"run.{key}={str(getattr(way, key)).lower()}" for key in keys)
            return f"set {words}, which takes about {size(found)} of a worker instead of {size(now)}"
    return f"it takes about {size(now)} of a worker, and no setting makes it fit; use workers with more memory"


def _savings(experiment: Experiment, spec: ModelSpec, needs: Needs) -> Iterator[Needs]:
    """Needs that take less memory, the cheapest ones first."""
    workers, batch_size = max(1, needs.workers), experiment.training.batch_size
    parts = [needs.accumulate]
    if not has_batch_norm(spec.name):
        share = batch_size // workers
        parts += [count for count in _divisors(share, share) if count > needs.accumulate]
    yield from (replace(needs, accumulate=count) for count in parts[1:])
    if not needs.recompute:
        yield from (replace(needs, accumulate=count, recompute=True) for count in parts)
    if needs.gpus is None or needs.gpus == 1:
        counts = [count for count in _divisors(batch_size, MOST_WORKERS) if count > workers]
        yield from (replace(needs, workers=count, accumulate=1) for count in counts)


def unworkable(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is said of workers and cannot work, whatever the cluster: places in the experiment, and what is wrong."""
    models = {name for spec in experiment.model for name in (spec.label, spec.name)}
    for name in experiment.run.by_model:
        if name not in models:
            yield ("run", "by_model", name), unknown("model in this experiment", name, sorted(models))
    for section, asked in (
        ("training", experiment.training.precision),
        ("evaluation", experiment.evaluation.precision),
    ):
        yield from (((section, "precision"), text) for text in _imprecise(experiment, asked))
    for spec in experiment.model:
        for keys, text in _faults(experiment, experiment.run.of(spec)):
            places = [experiment.run.place(spec, key) for key in keys]
            own = next((place for place in places if len(place) > 1), places[0])  # what is said of this model
            yield ("run", *own), text


def _imprecise(experiment: Experiment, asked: AskedPrecision) -> Iterator[str]:
    """Why workers that are known cannot compute in the precision that is asked for."""
    for spec in experiment.model:
        said = experiment.run.of(spec)
        if asked == "auto":
            continue
        if asked == "tf32" and (said.gpus == 0 or said.workers == 0):
            yield f"tf32 is not there on a CPU, where {spec.label} runs; set fp32"
        elif said.accelerator and lacks(asked, said.accelerator):
            yield f"{asked} is not there on {said.accelerator}, where {spec.label} runs; set auto"


def _faults(experiment: Experiment, said: WorkerRun) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong, and the keys that do not go together, the first of which is to be changed."""
    gpus, workers = said.gpus, 1 if said.workers is None else said.workers
    if gpus is not None and gpus > 1:
        yield ("gpus",), f"a worker uses one GPU, not {gpus:g}; set run.gpus=1 and as many run.workers"
    if gpus and gpus < 1 and workers > 1:
        text = f"{workers} workers cannot share a GPU ({gpus:g} each); set run.gpus=1, or run.workers=1"
        yield ("gpus", "workers"), text
    if gpus and not workers:
        text = f"{gpus:g} GPUs, but run.workers=0 trains in this process on the CPU; give run.workers 1 or more"
        yield ("gpus", "workers"), text
    if said.accelerator and not workers:
        text = f"{said.accelerator}, but run.workers=0 trains in this process on the CPU; give run.workers 1 or more"
        yield ("accelerator", "workers"), text
    if said.accelerator and gpus == 0:
        text = f"{said.accelerator} is a GPU, but run.gpus=0 asks for none; set run.gpus=1, or run.accelerator=null"
        yield ("accelerator", "gpus"), text
    if bool(workers) != experiment.run.on_ray:
        text = "0 runs everything in this process: it is for all models, as run.workers, or for none"
        yield ("workers",), text
    yield from _undealt(experiment.training.batch_size, max(1, workers), said.accumulate or 1)


def _undealt(batch_size: int, workers: int, parts: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Batches that cannot be dealt out: workers have equal parts, micro-batches may differ by a pair."""
    if batch_size % workers:
        yield ("workers",), f"{workers} workers cannot share a batch of {batch_size} pairs; give a divisor of it"
    elif parts > batch_size // workers:
        share = f"a worker's share of a batch has {batch_size // workers} pairs"
        yield ("accumulate", "workers"), f"{share}, which make no {parts} micro-batches; give at most so many"


def capacity(said: WorkerRun | Needs) -> float | None:
    """Bytes of memory that a worker has of its accelerator; None if nobody knows."""
    memory = ACCELERATOR_GB.get(said.accelerator or "")
    return None if memory is None else memory * 1e9 * USABLE * (1.0 if said.gpus is None else said.gpus)


def _too_large(experiment: Experiment, spec: ModelSpec, said: WorkerRun, there: float) -> str:
    needed, given = map(size, (trained_bytes(experiment, spec), there))
    return (
        f"run: {spec.label} needs {needed} for weights, gradients and optimiser, of a GPU of type {said.accelerator} "
        f"a worker has {given}; name a larger one: run.by_model.{spec.name}.accelerator=..."
    )


def _needs(said: WorkerRun, workers: int, accumulate: int) -> Needs:
    """What is said, with these for what is left open."""
    return Needs(
        workers=workers if said.workers is None else said.workers,
        gpus=1.0 if said.gpus is None and said.accelerator else said.gpus,
        accelerator=said.accelerator,
        threads=said.threads,
        loaders=said.loaders,
        accumulate=accumulate if said.accumulate is None else said.accumulate,
        recompute=said.recompute,
        compile=said.compile,
    )


def _ways(experiment: Experiment, said: WorkerRun, spec: ModelSpec) -> Iterator[tuple[int, int]]:
    """Workers and micro-batches in the order in which they are tried."""
    batch_size, whole_gpu = experiment.training.batch_size, said.gpus is None or said.gpus == 1
    counts = [said.workers] if said.workers else _divisors(batch_size, MOST_WORKERS)
    counts = counts if whole_gpu else counts[:1]
    yield from ((count, said.accumulate or 1) for count in counts)
    if said.accumulate is None and not has_batch_norm(spec.name):
        yield from ((counts[-1], parts) for parts in _divisors(batch_size // counts[-1], batch_size))


def _divisors(number: int, most: int) -> list[int]:
    return [count for count in range(1, min(number, most) + 1) if number % count == 0]


def has_batch_norm(name: str) -> bool:
    """Whether the architecture has BatchNorm, whose statistics are of whole batches."""
    if name in mini.MODELS:
        return False
    from time_ray.clip.batch_norm import has_batch_norm as found  # imports torch, which the mini models do not need

    return found(name)


def _activation_bytes(name: str, pairs: int, *, half: bool, recompute: bool) -> int:
    if name in mini.MODELS and not half and not recompute:
        return mini.MODELS[name].pair_bytes * pairs
    from time_ray.clip.cost import activations

    return activations(name, half=half, recompute=recompute).of(pairs)
