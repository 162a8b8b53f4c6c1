"""What a sweep takes on so many GPUs: its schedule is simulated, before anything runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec
from time_ray.core.plan import Stored
from time_ray.core.schedule import Delays, Schedule, Simulator
from time_ray.flops import Speed, assumed_rate
from time_ray.model_needs import Needs, needs_by_model
from time_ray.rates import KnownRate, StartUp
from time_ray.study import Study
from time_ray.workload import TrialNeeds, workload

ASSUMED_START = StartUp(7.0, 0.1)  # measured on two CPU cores; a GPU's first start is longer


@dataclass(frozen=True)
class Fleet:
    """What to plan for.

    Attributes:
        gpus: Numbers of GPUs.
        price: Of one GPU for an hour; None: unknown.
        mtbf: Mean hours between failures of one GPU; None: nothing fails.

    """

    gpus: tuple[int, ...]
    price: float | None = None
    mtbf: float | None = None


@dataclass(frozen=True)
class OnGpus:
    """A sweep on so many GPUs. `gpu_hours` are those of all of them until the end, `idle` the share without work."""

    seconds: float
    gpu_hours: float
    idle: float
    cost: float | None


@dataclass(frozen=True)
class LongestChain:
    """The trainings that one trial does one after another, and the seconds of these and of its evaluations."""

    trainings: int
    seconds: float


@dataclass(frozen=True)
class ModelCost:
    """What a trial of a model takes: seconds of a step and of an evaluation with its merge, GPUs, and who says so."""

    step: float
    evaluation: float
    gpus: float
    source: str


@dataclass(frozen=True)
class StartCost:
    """Seconds until a trial is at work, in a new process and in one that is used again, and who says so."""

    first: float
    later: float
    source: str


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """A sweep on several numbers of GPUs.

    Attributes:
        on: By number of GPUs.
        trials: Trials with something to do: trajectories, or cells where `run.pack` says so.
        work_gpu_hours: GPU-hours of training, merging and evaluation alone.
        enough: GPUs beyond which nothing gets faster.
        longest_chain: What the time cannot fall below; None if nothing is to do.
        bytes_written: Into the storage: weights.
        bytes_read: From the storage: experts that another trial made, each once by every trial that needs it.
        models: What each model takes.
        start_up: What trials take to start.

    """

    on: Mapping[str, OnGpus]
    trials: int
    work_gpu_hours: float
    enough: int
    longest_chain: LongestChain | None
    bytes_written: int
    bytes_read: int
    models: Mapping[str, ModelCost]
    start_up: StartCost


def trial_gpus(need: Needs) -> float:
    """GPUs that a trial holds."""
    return max(1, need.workers) * (1.0 if need.gpus is None else need.gpus)


def fleet_plan(
    study: Study,
    have: Stored,
    rates: Mapping[str, KnownRate],
    sizes: Mapping[str, int],
    fleet: Fleet,
    speed: Speed,
    start_up: StartUp | None = None,
) -> FleetPlan:
    """The study's sweep on a fleet.

    Args:
        study: What is to be run.
        have: What is stored already.
        rates: Measured ones, by model; where there is none, seconds follow from FLOPs.
        sizes: Bytes of each model's weights.
        fleet: The numbers of GPUs.
        speed: What a GPU sustains, where nothing was measured.
        start_up: What trials take to start, measured; None: it is assumed.

    Raises:
        UserError: a trial needs more GPUs than a number that is given, or none at all.

    """
    gpus = {model: trial_gpus(need) for model, need in needs_by_model(study.experiment).items()}
    UserError.unless_none(_unfit(gpus, fleet))
    known = {
        spec.label: rates.get(spec.label) or _assumed(study, spec, speed, gpus[spec.label])
        for spec in study.experiment.model
    }
    needs = {model: TrialNeeds(found.rate, gpus[model], sizes[model]) for model, found in known.items()}
    todo = workload(study.everything, needs, have, one_each=study.experiment.run.pack == "cell")
    starts = start_up or ASSUMED_START
    delays = Delays(*starts, math.inf if fleet.mtbf is None else fleet.mtbf)
    simulator = Simulator(todo.trials, made=todo.stored, delays=delays)
    totals = simulator.totals
    return FleetPlan(
        on={str(count): _on(simulator.on(count), totals.work, count, fleet.price) for count in fleet.gpus},
        trials=len(todo.trials),
        work_gpu_hours=round(totals.work / 3600, 3),
        enough=simulator.enough(),
        longest_chain=_longest_chain(simulator.chains, todo.trainings),
        bytes_written=totals.written,
        bytes_read=totals.read,
        models={model: ModelCost(*found.rate, gpus[model], found.source) for model, found in known.items()},
        start_up=StartCost(*starts, "a sweep on this storage" if start_up else "assumed until a sweep measures it"),
    )


def _assumed(study: Study, spec: ModelSpec, speed: Speed, gpus: float) -> KnownRate:
    """The rate that follows from FLOPs."""
    at = f"{speed.training:g} TFLOP/s in {speed.precision} (--tflops), {speed.evaluation:g} in evaluation"
    return KnownRate(assumed_rate(study, spec, speed, gpus), f"assumed from FLOPs at {at}; --measure times it")


def _unfit(gpus: Mapping[str, float], fleet: Fleet) -> Iterator[str]:
    without = [model for model, held in gpus.items() if not held]
    if without:
        yield f"--gpus: run.gpus is 0, so trials of {', '.join(without)} use none; set run.gpus=1"
    for count in fleet.gpus:
        for model, held in gpus.items():
            if count < held:
                holds = f"a trial of {model} holds {held:g} GPUs (run.workers x run.gpus)"
                yield f"--gpus {count}: {holds}; give at least {math.ceil(held)}"


def _longest_chain(seconds: Sequence[float], trainings: Sequence[int]) -> LongestChain | None:
    longest = max(zip(seconds, trainings, strict=True), default=None)
    return None if longest is None else LongestChain(longest[1], round(longest[0], 1))


def _on(schedule: Schedule, work: float, count: int, price: float | None) -> OnGpus:
    total = count * schedule.seconds
    return OnGpus(
        seconds=round(schedule.seconds, 1),
        gpu_hours=round(total / 3600, 3),
        idle=round(1 - work / total, 3) if total else 0.0,
        cost=None if price is None else round(total / 3600 * price, 2),
    )
