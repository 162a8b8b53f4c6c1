"""Cells into bundles: a trial costs many seconds before its first step, so a small sweep must not start one a cell."""

from collections.abc import Sequence

from time_ray.core.grid import Cell
from time_ray.core.plan import NOTHING, Stored, needs

OVERHEAD_SECONDS = 15.0  # from a trial's start to its first training step, measured on two cores
WORTH = 10  # a trajectory this many times longer than the overhead gets a trial of its own


def pack(
    cells: Sequence[Cell], capacity: int, seconds: dict[str, float], stored: Stored = NOTHING, *, one_each: bool = False
) -> list[list[Cell]]:
    """Bundles of cells, longest first; results never depend on them.

    Cells of one trajectory stay together. Long trajectories get a bundle each, the rest is spread evenly.

    Args:
        cells: The cells to be run.
        capacity: How many bundles run at once.
        seconds: What each trajectory costs, by its key, where that is known.
        stored: What need not be made again.
        one_each: Every cell is a bundle of its own.

    """
    if one_each:
        return [[cell] for cell in cells]
    groups = by_trajectory(cells)
    costs = {name: seconds.get(name) or float(_size(group, stored)) for name, group in groups.items()}
    order = sorted(groups, key=lambda name: (-costs[name], name))
    long = [name for name in order if seconds.get(name, 0.0) > WORTH * OVERHEAD_SECONDS]
    bundles = [groups[name] for name in long]
    return bundles + _spread([(groups[name], costs[name]) for name in order if name not in long], capacity)


def by_trajectory(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells that share a chain of experts, by its key."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.trajectory, []).append(cell)
    return groups


def _spread(groups: Sequence[tuple[list[Cell], float]], capacity: int) -> list[list[Cell]]:
    """Longest first, each to the bundle with the least work so far."""
    bundles: list[list[Cell]] = [[] for _ in range(min(capacity, len(groups)))]
    loads = [0.0] * len(bundles)
    for group, cost in groups:
        lightest = loads.index(min(loads))
        bundles[lightest] += group
        loads[lightest] += cost
    return bundles


def _size(group: Sequence[Cell], stored: Stored) -> int:
    """Trainings and evaluations still to do: on small models one costs about as much as the other."""
    trainings = {key for cell in group for key in needs(cell).experts if key not in stored.weights}
    evaluations = {key for cell in group for key in needs(cell).scores if key not in stored.scores}
    return len(trainings) + len(evaluations)
