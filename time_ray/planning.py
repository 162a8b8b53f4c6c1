"""What a sweep would do and cost, before it runs: counts, bytes, seconds and GPU-hours."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from time_ray.clip.expert_files import copied
from time_ray.clip.preprocessing import Resolved, resolve
from time_ray.core import quantities
from time_ray.core.budget import Budget
from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.core.plan import Plan, Work, plan
from time_ray.core.strategies import Ema, Window
from time_ray.core.tuning import Tuning
from time_ray.fleet_plan import Fleet, FleetPlan, fleet_plan
from time_ray.flops import Speed, gflops
from time_ray.model_needs import (
    Needs,
    capacity,
    needs_by_model,
    settled_scoring,
    settled_training,
    training_bytes,
    weight_bytes,
)
from time_ray.opened import Opened
from time_ray.rates import KnownRate, known_rates, read_start_up, work_seconds
from time_ray.results import read_results, stored
from time_ray.search_plan import SearchPlan, search_plan
from time_ray.store.store import Store
from time_ray.study import Study, check_experts
from time_ray.trials import of_a_trial

CELLS_LOOKED_AT = 2000  # beyond so many, a plan does not read what each has done before it packs them


@dataclass(frozen=True)
class StreamSize:
    """The stream of the first seed; those of others are as long."""

    tasks: int
    classes: int
    datasets_never_learned: int


@dataclass(frozen=True)
class TrainingCounts:
    """`asked`: what cells on their own would train. `distinct`: what is left when they share. `to_do`: not stored."""

    asked: int
    distinct: int
    to_do: int


@dataclass(frozen=True)
class MergeCounts:
    """Merges that differ; they are cheap, and are made again wherever they are needed."""

    distinct: int


@dataclass(frozen=True)
class EvaluationCounts:
    """Models to be scored: those that differ, and those that are not scored yet."""

    distinct: int
    to_do: int


@dataclass(frozen=True)
class GpuHours:
    """Hours of one GPU that sustains `tflops` TFLOP/s in training, and `evaluation_tflops` in evaluation."""

    training: float
    evaluation: float
    tflops: float
    evaluation_tflops: float


@dataclass(frozen=True)
class PlannedTuning:
    """A search for parameters.

    Attributes:
        name: The technique, and where it merges.
        candidates: How many are tried.
        evaluations: Merges, each with its evaluation: a candidate for every seed.
        seconds: Of one worker for these; None until a sweep on this storage has measured the model.
        found: The best parameters, once it is over.

    """

    name: str
    candidates: int
    evaluations: int
    seconds: float | None
    found: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class PlannedNeeds(Needs):
    """What a trial of a model needs.

    Attributes:
        training_bytes: What training takes of a worker's GPU, or of the memory of its machine if it has none.
        cache_bytes: The most that weights in use take of its machine's memory, beside the base.
        precision: What it is trained in.
        evaluation_precision: What it is scored in.

    """

    training_bytes: int
    cache_bytes: int
    precision: str
    evaluation_precision: str


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What a sweep would do.

    Attributes:
        steps: Steps of a task, by model and budget.
        preprocessing: What every model's images go through, its activation, and who says so.
        needs: What a trial of each model needs.
        trials: Ray Tune trials; 0 if nothing is left to do.
        on: What says how many trials run at once: `run.trials`, `the cluster` of RAY_ADDRESS, or `this machine`.
        bytes: Bytes to be stored: experts, their second moments where cells merge by them, and final models.
        moments: How many of these are second moments, each as large as an expert.
        seconds: Wall seconds, see `on`; None until a sweep on this storage has measured every model.
        gpu_hours: None where no budget is in FLOPs and no `tflops` was given.
        fleet: On the numbers of GPUs that were asked for; None if none were.
        search: What the search would train; None where the full grid is asked for, which is what all else is of.
        notes: What is not as it may look, one line each.
        tunings: Searches for parameters, which come after all else here, and their best cells after them.

    """

    stream: StreamSize
    steps: Mapping[str, Mapping[str, int]]
    preprocessing: Mapping[str, Resolved]
    needs: Mapping[str, PlannedNeeds]
    cells: int
    trials: int
    trainings: TrainingCounts
    merges: MergeCounts
    evaluations: EvaluationCounts
    bytes: int
    moments: int
    on: str
    seconds: float | None
    gpu_hours: GpuHours | None
    fleet: FleetPlan | None = None
    search: SearchPlan | None = None
    notes: tuple[str, ...] = ()
    tunings: tuple[PlannedTuning, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The mapping that `plan -f json` prints."""
        models = {label: {**found.as_dict(), "source": found.source} for label, found in self.preprocessing.items()}
        return {**asdict(self), "preprocessing": models}


@dataclass(frozen=True, kw_only=True)
class BudgetReport:
    """What one model gets from one budget. `steps` and `samples` are a task's, `total_` those of the whole stream.

    GFLOPs are of one training step; `maf` are memory-adjusted: FLOPs times the share of the largest memory.
    """

    model: str
    budget: str
    parameters: int
    step_gflops: float
    memory_ratio: float
    maf: float
    tasks: int
    steps: int
    samples: int
    total_samples: int
    total_gflops: float


def plan_report(
    opened: Opened, tflops: float | None = None, fleet: Fleet | None = None, *, slots: int | None = None
) -> PlanReport:
    """What a sweep of the experiment would do on its storage now.

    Args:
        opened: The experiment.
        tflops: TFLOP/s that a GPU sustains in training; None: what is assumed of its precision.
        fleet: Numbers of GPUs to plan for.
        slots: How many trials run at once on the cluster; None: on as many CPUs as this machine has.

    Raises:
        UserError: the fleet cannot hold a trial; given experts do not fit their models.

    """
    study, store = opened.study, opened.store
    experiment = study.experiment
    have = stored(store)
    check_experts(study, have.weights)
    counts, speed = plan(study.everything, have), Speed.of(study, tflops)
    rates = known_rates(store, study.everything)
    seconds = work_seconds(counts.work, {model: known.rate for model, known in rates.items()})
    needs = _needs(experiment)
    trials, at_once = _trials(study, counts, store, needs, slots)
    preprocessing = {spec.label: resolve(spec) for spec in experiment.model}
    in_flops = tflops is not None or any(budget.gflops is not None for budget in experiment.budget)
    return PlanReport(
        stream=_stream(study),
        steps=_steps(study),
        preprocessing=preprocessing,
        needs=needs,
        cells=len(study.cells) + len(study.tuned),
        trials=trials,
        trainings=TrainingCounts(counts.trainings_asked, counts.trainings_distinct, counts.trainings_to_do),
        merges=MergeCounts(counts.merges_distinct),
        evaluations=EvaluationCounts(counts.evaluations_distinct, counts.evaluations_to_do),
        bytes=_bytes(experiment, counts),
        moments=counts.moments_to_do,
        on="run.trials" if experiment.run.trials else "this machine" if slots is None else "the cluster",
        seconds=None if seconds is None else round(seconds / max(1, min(at_once, trials)), 1),
        gpu_hours=_gpu_hours(study, counts, speed) if in_flops else None,
        fleet=None
        if fleet is None
        else fleet_plan(study, have, rates, _sizes(experiment), fleet, speed, read_start_up(store)),
        search=search_plan(study, opened.files),
        notes=(
            *_given(experiment),
            *_copied(study),
            *_same_techniques(study),
            *_unweighed(study),
            *_stuck_at_the_base(study),
            *_short_of_snapshots(study),
            *_assumed(preprocessing),
            *_without_batch_norm(study),
            *_too_tight(needs),
        ),
        tunings=tuple(_tuning(one, study, rates) for one in study.tunings),
    )


def budget_reports(
    experiment: Experiment, steps: Mapping[tuple[ModelSpec, Budget], int], num_tasks: int
) -> list[BudgetReport]:
    """A row for each model and budget, whose steps of a task are given."""
    from time_ray.clip.cost import size, step_cost

    batch_size = experiment.training.batch_size
    costs = {spec: step_cost(spec.name, batch_size) for spec, _ in steps}
    return [
        BudgetReport(
            model=spec.label,
            budget=budget.label,
            parameters=size(spec.name).total,
            step_gflops=costs[spec].gflops,
            memory_ratio=costs[spec].memory_ratio,
            maf=costs[spec].maf,
            tasks=num_tasks,
            steps=count,
            samples=count * batch_size,
            total_samples=count * batch_size * num_tasks,
            total_gflops=count * num_tasks * costs[spec].maf,
        )
        for (spec, budget), count in steps.items()
    ]


def _tuning(tuning: Tuning, study: Study, rates: Mapping[str, KnownRate]) -> PlannedTuning:
    candidates, known = tuning.settings.candidates, rates.get(tuning.cells[0].setting.model.label)
    evaluations = candidates * len(tuning.cells)
    seconds = None if known is None else round(evaluations * known.rate.evaluation, 1)
    return PlannedTuning(tuning.name, candidates, evaluations, seconds, study.found.get(tuning.key))


def _stream(study: Study) -> StreamSize:
    trainings = study.settings[0].trainings
    concepts = [concept for training in trainings for concept in training.task.concepts]
    unseen = {source.name for source in study.datasets.adaptation} - {concept.dataset for concept in concepts}
    return StreamSize(len(trainings), len(concepts), len(unseen))


def _copied(study: Study) -> Iterator[str]:
    for path, other in copied(study.datasets.experts or {}):
        yield f"'{path}' has the same bytes as '{other}': each counts in a merge"


def _given(experiment: Experiment) -> Iterator[str]:
    if experiment.experts is not None:
        yield f"experts are read from {experiment.experts}: nothing is trained, and no budget is spent"


def _same_techniques(study: Study) -> Iterator[str]:
    """Techniques of the experiment that are another one."""
    written = {cell.technique.label: cell.technique for cell in study.cells if cell.technique.written_as}
    for label, technique in written.items():
        yield f"technique {label} is {technique.name} (its scaling is 1 / number of experts): they share all they make"


def _unweighed(study: Study) -> Iterator[str]:
    """Windows whose weights do nothing with some techniques."""
    techniques = dict.fromkeys(cell.technique.label for cell in study.cells if not cell.technique.weighs_experts)
    windows = (side for cell in study.cells for side in (cell.init, cell.deploy) if isinstance(side, Window))
    for label in dict.fromkeys(window.label for window in windows if window.weights is not None):
        if techniques:
            yield f"weights of {label} are without effect with {', '.join(techniques)}"


def _stuck_at_the_base(study: Study) -> Iterator[str]:
    """Running merges that begin with the base, by techniques that leave it only where several models agree."""
    sides = ((side, cell.technique) for cell in study.cells for side in (cell.init, cell.deploy))
    stuck = (
        f"{side.label} with {technique.label}"
        for side, technique in sides
        if technique.needs_agreement and isinstance(side, Ema) and side.start == "base"
    )
    for which in dict.fromkeys(stuck):
        yield f"{which} stays at the base, with which nothing agrees; write {{name: ema, start: expert}}"


def _short_of_snapshots(study: Study) -> Iterator[str]:
    """Trainings that are too short for the snapshots whose mean an expert is to be."""
    within = study.experiment.training.average_within
    if within is not None and within.last is not None:
        for steps in dict.fromkeys(setting.trainings[0].steps for setting in study.settings):
            if steps > 0 and within.snapshots(steps) < within.last:
                number = within.snapshots(steps)
                yield f"training.average_within: {number} of {within.last} snapshots in a training of {steps} steps"


def _assumed(preprocessing: Mapping[str, Resolved]) -> Iterator[str]:
    """Models whose preprocessing nobody says, or not all of it."""
    for label, found in preprocessing.items():
        if found.assumed:
            yield f"{label}: {found.assumed}; set preprocess"


def _without_batch_norm(study: Study) -> Iterator[str]:
    """An option of the experiment that does nothing for some models."""
    if study.experiment.batch_norm.num_batches is not None:
        for label in dict.fromkeys(s.model.label for s in study.settings if s.batches is None):
            yield f"batch_norm.statistics is without effect on {label}, which has no BatchNorm"


def _needs(experiment: Experiment) -> dict[str, PlannedNeeds]:
    """Raises UserError with every fault."""
    cache_bytes = int(experiment.run.cache_gb * 1e9)
    return {
        spec.label: PlannedNeeds(
            **vars(need),
            training_bytes=training_bytes(experiment, spec, need),
            cache_bytes=cache_bytes,
            precision=settled_training(experiment, spec).precision,
            evaluation_precision=settled_scoring(experiment, spec).precision,
        )
        for spec, need in zip(experiment.model, needs_by_model(experiment).values(), strict=True)
    }


def _too_tight(needs: Mapping[str, PlannedNeeds]) -> Iterator[str]:
    """Models that are unlikely to fit."""
    for label, need in needs.items():
        there = capacity(need)
        if there is not None and need.training_bytes > there:
            amounts = (
                f"training takes about {quantities.size(need.training_bytes)}, a worker has {quantities.size(there)}"
            )
            more = "more run.workers, run.accumulate or run.recompute=true"
            yield f"{label}: {amounts} of a GPU of type {need.accelerator}; set {more}"


def _steps(study: Study) -> dict[str, dict[str, int]]:
    steps: dict[str, dict[str, int]] = {}
    for setting in study.settings:
        steps.setdefault(setting.model.label, {})[setting.budget] = setting.trainings[0].steps
    return steps


def _trials(study: Study, counts: Plan, store: Store, needs: Mapping[str, Needs], slots: int | None) -> tuple[int, int]:
    """Trials, and how many run at once, on as many CPUs as this machine has if nobody knows."""
    run = study.experiment.run
    widest = max(max(1, need.workers) * need.threads for need in needs.values())
    at_once = run.trials or slots or max(1, (os.cpu_count() or 1) // widest)
    if not counts.cells_to_do:
        return 0, at_once
    if not run.on_ray:
        return 1, 1
    todo = (
        [result.cell for result in read_results(study.everything, store) if not result.done]
        if counts.cells < CELLS_LOOKED_AT
        else study.everything
    )
    return len(of_a_trial(todo, one_each=run.pack == "cell")), at_once


def _bytes(experiment: Experiment, counts: Plan) -> int:
    sizes = _sizes(experiment)
    return sum(work.weights * sizes[model] for model, work in counts.work.items())


def _sizes(experiment: Experiment) -> dict[str, int]:
    return {spec.label: weight_bytes(spec) for spec in experiment.model}


def _gpu_hours(study: Study, counts: Plan, speed: Speed) -> GpuHours:
    """Training whole batches, evaluation each scored image and text once a model."""
    training = evaluation = 0.0
    for spec in study.experiment.model:
        work, each = counts.work.get(spec.label, Work(0, 0, 0)), gflops(study, spec)
        training += work.steps * each.step
        evaluation += work.evaluations * each.evaluation
    hours = training / (speed.training * 3.6e6), evaluation / (speed.evaluation * 3.6e6)
    return GpuHours(round(hours[0], 3), round(hours[1], 3), speed.training, speed.evaluation)
