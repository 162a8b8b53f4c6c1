"""Trials: what Ray Tune runs at a time is a trajectory, and the longest starts first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from time_ray.core.grid import Cell
from time_ray.core.plan import NOTHING, Stored, needs

EVALUATION_STEPS = 20.0  # where nothing was measured: an evaluation takes about as long as this many steps


@dataclass(frozen=True)
class Costs:
    """What one model costs, in a unit that all models of a sweep share."""

    step: float
    evaluation: float


@dataclass(frozen=True)
class Trial:
    """Cells that share a chain of experts, or one of them.

    `chain` are the experts that are yet to be trained, by key, in order; `cost` is what is left to do.
    """

    cells: tuple[str, ...]
    model: str
    chain: tuple[str, ...]
    cost: float


def trials(
    cells: Sequence[Cell], costs: Mapping[str, Costs], stored: Stored = NOTHING, *, one_each: bool = False
) -> list[Trial]:
    """Every cell in one trial, longest trial first; results never depend on it.

    Args:
        cells: The cells to be run.
        costs: By the label of a model.
        stored: What need not be made again.
        one_each: Every cell is a trial of its own, else cells of one trajectory are.

    """
    groups = of_a_trial(cells, one_each=one_each)
    return sorted((_trial(group, costs, stored) for group in groups), key=lambda trial: -trial.cost)


def of_a_trial(cells: Sequence[Cell], *, one_each: bool) -> list[list[Cell]]:
    """The cells of each trial: those of a trajectory, or `one_each`."""
    return [[cell] for cell in cells] if one_each else list(by_trajectory(cells).values())


def by_trajectory(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells that share a chain of experts, by its key."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.trajectory, []).append(cell)
    return groups


def _trial(group: Sequence[Cell], costs: Mapping[str, Costs], stored: Stored) -> Trial:
    """What all cells of the group need, as if no other trial made any of it."""
    model = group[0].setting.model.label
    steps: dict[str, int] = {}
    scores: set[str] = set()
    for cell in group:
        need = needs(cell)
        steps.update(need.untrained(stored))
        scores.update(key for key in need.scores if key not in stored.scores)
    cost = sum(steps.values()) * costs[model].step + len(scores) * costs[model].evaluation
    return Trial(tuple(cell.key for cell in group), model, tuple(steps), cost)
