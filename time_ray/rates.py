"""Measured throughput on a storage root: what a plan needs to say how long a sweep will take."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from time_ray.core.grid import Cell, Setting
from time_ray.core.keys import key_of
from time_ray.core.plan import Work
from time_ray.results import CellResult
from time_ray.store.entry_files import Entry
from time_ray.store.store import Store
from time_ray.trials import EVALUATION_STEPS, Costs

_START_UP = key_of("start-up")


class Rate(NamedTuple):
    """Seconds of one trial for one training step, and for one evaluation with its merge."""

    step: float
    evaluation: float


class KnownRate(NamedTuple):
    """A rate, and who measured it, for people."""

    rate: Rate
    source: str


def measured(results: Sequence[CellResult]) -> dict[str, Rate]:
    """The mean rate of each model over rows that were computed."""
    sums: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        steps = [training.steps for training in result.cell.setting.trainings]
        for row in result.rows[1:]:
            train, evaluation = row.seconds.get("train", 0.0), row.seconds.get("eval", 0.0)
            pair = (train / max(1, steps[row.task - 1]), evaluation + row.seconds.get("deploy", 0.0))
            sums.setdefault(result.cell.setting.model.label, []).append(pair)
    return {
        model: Rate(*(sum(column) / len(pairs) for column in zip(*pairs, strict=True))) for model, pairs in sums.items()
    }


def write_rates(store: Store, results: Sequence[CellResult]) -> None:
    """The store knows the rates of these models, if no sweep had measured them yet."""
    names = _names([result.cell for result in results])
    for model, rate in measured(results).items():
        if store.entry("rates", names[model]) is None:
            store.record("rates", names[model], {"model": model, **rate._asdict()})


def write_timed(store: Store, cells: Sequence[Cell], rates: Mapping[str, Rate], device: str) -> None:
    """The store knows these rates of the cells' models, timed on that device, until a sweep has measured them."""
    for model, name in _names(cells).items():
        if model in rates:
            entry = {"model": model, **rates[model]._asdict(), "device": device}
            store.replace("rates", _timed(name), entry)


def read_rates(store: Store, cells: Sequence[Cell]) -> dict[str, Rate]:
    """The rates that the store knows of the models of one experiment's cells, by label."""
    return {model: known.rate for model, known in known_rates(store, cells).items()}


def known_rates(store: Store, cells: Sequence[Cell]) -> dict[str, KnownRate]:
    """As `read_rates`, with who measured each: a sweep, or else `plan --measure`."""
    found: dict[str, KnownRate] = {}
    for model, name in _names(cells).items():
        if numbers := _numbers(store.entry("rates", name), *Rate._fields):
            found[model] = KnownRate(Rate(*numbers), "a sweep on this storage")
        elif numbers := _numbers(entry := store.entry("rates", _timed(name)), *Rate._fields):
            found[model] = KnownRate(Rate(*numbers), f"plan --measure on {(entry or {}).get('device')}")
    return found


class StartUp(NamedTuple):
    """Seconds from a trial's start until it is at work: in a new process, and in one that is used again."""

    first: float
    later: float


def write_start_up(store: Store, first: float | None, later: float | None) -> None:
    """The store knows what trials took to start in the newest sweep that started some of both kinds."""
    if first is not None and later is not None:
        store.replace("rates", _START_UP, {"first": first, "later": later})


def read_start_up(store: Store) -> StartUp | None:
    """What trials took to start on this storage; None: nobody knows yet."""
    numbers = _numbers(store.entry("rates", _START_UP), *StartUp._fields)
    return StartUp(*numbers) if numbers else None


def note_gflops(store: Store, name: str, batch_size: int) -> None:
    """The store knows the operations of an optimiser step of an architecture; where it does not, they are counted."""
    if read_gflops(store, name, batch_size) is None:
        from time_ray.clip.cost import step_cost

        entry = {"architecture": name, "batch_size": batch_size, "gflops": step_cost(name, batch_size).gflops}
        store.record("rates", _operations(name, batch_size), entry)


def read_gflops(store: Store, name: str, batch_size: int) -> float | None:
    """Operations of a step, in GFLOPs, as `time-ray budget` has them; None: nobody has counted them here."""
    numbers = _numbers(store.entry("rates", _operations(name, batch_size)), "gflops")
    return numbers[0] if numbers else None


def _operations(name: str, batch_size: int) -> str:
    return key_of("operations", name, batch_size)


def _numbers(entry: Entry | None, *names: str) -> list[float]:
    """Those numbers of an entry; none where there is no entry, or one of somebody else that lacks some."""
    found = [value for name in names if isinstance(value := (entry or {}).get(name), (int, float))]
    return [float(value) for value in found] if len(found) == len(names) else []


def work_seconds(work: Mapping[str, Work], rates: Mapping[str, Rate]) -> float | None:
    """Seconds of one worker for all the work; None if a model was never measured."""
    if any(model not in rates for model in work):
        return None
    return sum(w.steps * rates[m].step + w.evaluations * rates[m].evaluation for m, w in work.items())


def trial_costs(cells: Sequence[Cell], rates: Mapping[str, Rate], batch_size: int) -> dict[str, Costs]:
    """What each model of the cells costs, to order trials by: seconds if all were measured, else floating-point
    operations, and nothing but steps where there is one model.
    """
    models = {cell.setting.model.label: cell.setting.model.name for cell in cells}
    if models.keys() <= rates.keys():
        return {label: Costs(rates[label].step, rates[label].evaluation) for label in models}
    if len(models) == 1:
        return dict.fromkeys(models, Costs(1.0, EVALUATION_STEPS))
    from time_ray.clip.cost import operations

    steps = {label: operations(name, batch_size).step for label, name in models.items()}
    return {label: Costs(step, EVALUATION_STEPS * step) for label, step in steps.items()}


def _names(cells: Sequence[Cell]) -> dict[str, str]:
    """Where each model's rate is kept: it holds for batches of one size and precision, and for what is scored."""
    settings = {cell.setting.model.label: cell.setting for cell in cells}
    return {model: _name(model, setting) for model, setting in settings.items()}


def _name(model: str, setting: Setting) -> str:
    config, scoring = setting.trainings[0].config, setting.scoring
    prompts: tuple[object, ...] = () if scoring.templates is None else (scoring.templates,)
    prompts += () if scoring.precision == "fp32" else (scoring.precision,)
    prompts += () if setting.trainings[0].given is None else ("given",)  # whose steps nobody has seen
    return key_of(
        "rate", model, config.batch_size, config.precision, setting.evaluation_data_key, scoring.subset, *prompts
    )


def _timed(name: str) -> str:
    """Where the rate of `plan --measure` is kept, by the name of that of sweeps."""
    return key_of("timed", name)
