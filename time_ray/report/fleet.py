"""`time-ray plan --gpus`: what a sweep takes on so many GPUs."""

import re

from rich.console import Console

from time_ray.core.errors import UserError
from time_ray.core.quantities import duration, size
from time_ray.fleet_plan import Fleet, FleetPlan
from time_ray.report import tables


def fleet_of(gpus: str | None, price: float | None, mtbf: float | None) -> Fleet | None:
    """The fleet that options of the command line say; None without `--gpus`.

    Raises:
        UserError: numbers of GPUs that are none, or options that mean nothing without them.

    """
    if gpus is None:
        UserError.unless_none(
            f"{option}: means nothing without --gpus; give numbers of GPUs, as in --gpus 8,64,1000"
            for option, value in (("--price", price), ("--mtbf", mtbf))
            if value is not None
        )
        return None
    parts = [part.strip() for part in gpus.split(",")]
    UserError.unless_none(
        f"--gpus: '{part}' is no number of GPUs; write one or more, as in 8,64,1000"
        for part in parts
        if not re.fullmatch("[0-9]+", part) or not int(part)
    )
    return Fleet(tuple(dict.fromkeys(int(part) for part in parts)), price, mtbf)


def print_fleet(fleet: FleetPlan, talk: Console) -> None:
    """A row for each number of GPUs, and what more of them would help, are on stdout; who says so is on stderr."""
    priced = any(at.cost is not None for at in fleet.on.values())
    rows = [
        {
            "GPUs": int(count),
            "time": duration(at.seconds),
            "GPU-hours": at.gpu_hours,
            "idle": f"{at.idle:.0%}",
            **({"cost": at.cost} if priced else {}),
        }
        for count, at in fleet.on.items()
    ]
    tables.print_rows(rows, "table")
    if fleet.longest_chain is None:
        return
    chain = f"the longest chain of {fleet.longest_chain.trainings} tasks takes {duration(fleet.longest_chain.seconds)}"
    print(f"beyond {fleet.enough} GPUs nothing gets faster: {chain}")
    work = f"{fleet.work_gpu_hours:.2f} GPU-hours of work in {fleet.trials} trials"
    print(f"{work}; storage: {size(fleet.bytes_written)} written, {size(fleet.bytes_read)} read")
    starts = fleet.start_up
    talk.print(
        f"note: a trial starts in {starts.first:.2g} s, in a process that is used again in {starts.later:.2g} s: "
        f"{starts.source}"
    )
    for model, cost in fleet.models.items():
        talk.print(f"note: {model}: {cost.step:.3g} s a step, {cost.evaluation:.3g} s an evaluation: {cost.source}")
