"""Figures as files: those of a sweep, of a cell over its seeds, and of one cell, as far as they make sense."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure

from time_ray.analysis.axis_importance import AxisImportance
from time_ray.analysis.costs import Costs
from time_ray.analysis.ranking import Ranking
from time_ray.core.metrics import OF_THE_PAPER
from time_ray.figures.cost import cost_by_stage
from time_ray.figures.curves import cell_over_lengths, cell_over_tasks, sweep_over_lengths, sweep_over_tasks
from time_ray.figures.datasets import datasets_by_task
from time_ray.figures.heat_map import heat_map
from time_ray.figures.numbers import over_numbers
from time_ray.figures.plane import plane
from time_ray.figures.shares import shares
from time_ray.figures.style import drawn
from time_ray.results import CellResult

Files = Iterator[tuple[str, bytes]]  # name, and SVG
Build = Callable[[], Figure | None]


def of_sweep(results: Sequence[CellResult], ranked: Ranking, importance: AxisImportance | None, spent: Costs) -> Files:
    """The figures of a sweep.

    Args:
        results: of all cells, finished or not.
        ranked: their ranking, which may have no rows.
        importance: of its axes; None where the grid is not finished, or has one cell.
        spent: what they cost.

    Yields:
        File name and SVG, equal bytes for equal results.

    """
    return _files(
        {
            "heat_map.svg": partial(heat_map, results, ranked, ranked.metric.name),
            **{
                f"heat_map_{name}.svg": partial(heat_map, results, ranked, name)
                for name in OF_THE_PAPER
                if name != ranked.metric.name
            },
            "ka_zs.svg": partial(plane, ranked),
            "tasks.svg": partial(sweep_over_tasks, ranked),
            "lengths.svg": partial(sweep_over_lengths, ranked),
            "importance.svg": lambda: None if importance is None else shares(importance),
            "numbers.svg": partial(over_numbers, results, ranked, ranked.metric.name),
            "cost.svg": partial(cost_by_stage, spent, ranked),
        }
    )


def of_summary(results: Sequence[CellResult]) -> Files:
    """The figures of one cell over its seeds. Yields file name and SVG."""
    return _files(
        {
            "tasks.svg": partial(cell_over_tasks, results),
            "datasets.svg": partial(datasets_by_task, results),
            "lengths.svg": partial(cell_over_lengths, results),
        }
    )


def of_cell(result: CellResult) -> Files:
    """The figures of one cell. Yields file name and SVG."""
    return of_summary([result])


def _files(builds: Mapping[str, Build]) -> Files:
    for name, build in builds.items():
        image = drawn(build)
        if image is not None:
            yield name, image
