"""Measured throughput on a storage root: what a plan needs to say how long a sweep will take."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from time_ray.core.grid import Cell
from time_ray.core.keys import key_of
from time_ray.core.plan import Work
from time_ray.results import CellResult
from time_ray.store.store import Store
from time_ray.trials import EVALUATION_STEPS, Costs


class Rate(NamedTuple):
    """Seconds of one worker for one training step, and for one evaluation with its merge."""

    step: float
    evaluation: float


def measured(results: Sequence[CellResult]) -> dict[str, Rate]:
    """The mean rate of each model over rows that were computed."""
    sums: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        steps = [training.steps for training in result.cell.setting.trainings]
        for row in result.rows[1:]:
            train, evaluation = row.seconds.get("train", 0.0), row.seconds.get("eval", 0.0)
            pair = (train / steps[row.task - 1], evaluation + row.seconds.get("deploy", 0.0))
            sums.setdefault(result.cell.setting.model.label, []).append(pair)
    return {
        model: Rate(*(sum(column) / len(pairs) for column in zip(*pairs, strict=True))) for model, pairs in sums.items()
    }


def write_rates(store: Store, results: Sequence[CellResult]) -> None:
    """The store knows the rates of these models, if it did not yet."""
    cells = [result.cell for result in results]
    names, known = _names(cells), read_rates(store, cells)
    for model, rate in measured(results).items():
        if model not in known:
            store.record("rates", names[model], {"model": model, **rate._asdict()})


def read_rates(store: Store, cells: Sequence[Cell]) -> dict[str, Rate]:
    """The rates that the store knows of the models of one experiment's cells, by label."""
    found = {model: store.entry("rates", name) for model, name in _names(cells).items()}
    return {m: Rate(float(str(e["step"])), float(str(e["evaluation"]))) for m, e in found.items() if e}


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
    return {
        model: key_of(
            "rate", model, config.batch_size, config.precision, setting.evaluation_data_key, setting.scoring.subset
        )
        for model, setting in settings.items()
        for config in (setting.trainings[0].config,)
    }
