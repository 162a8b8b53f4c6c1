"""Scores against every axis that is a number: parameters of techniques and strategies, steps, sizes of models."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from time_ray.analysis.ranking import Ranking
from time_ray.core.grid import Cell
from time_ray.core.metrics import METRICS
from time_ray.core.statistics import mean
from time_ray.figures.places import Place, places
from time_ray.figures.style import BLUE, DASHES, FAINT, VERMILION, key, legend, panel, short
from time_ray.results import CellResult

MOST_PANELS, ACROSS = 9, 3
MOST_DOTS = 200  # cells of a panel, beyond which a bar from the lowest to the highest stands for them
WIDE = 100  # the highest over the lowest value of an axis, beyond which it is logarithmic

_BEST: dict[str, Any] = {"color": BLUE, "linestyle": DASHES[0], "marker": "o", "markersize": 4}
_MEAN: dict[str, Any] = {"color": VERMILION, "linestyle": DASHES[1], "marker": "s", "markersize": 3.5}
_DOTS: dict[str, Any] = {"color": FAINT, "linestyle": "none", "marker": ".", "markersize": 4, "alpha": 0.5}

Scored = Sequence[tuple[float, float]]  # a cell's place on the axis, and what it scores


def over_numbers(results: Sequence[CellResult], ranked: Ranking, metric: str) -> Figure | None:
    """A panel for each number that varies: every cell that has it, the best at each value, and the mean.

    Cells count as served, on all test images, mean over seeds. A parameter of a technique counts where it merges.
    """
    found = numeric_axes(places(results, ranked), metric)
    if not found:
        return None
    shown = list(found.items())[:MOST_PANELS]
    across, down = min(ACROSS, len(shown)), -(-len(shown) // ACROSS)
    title = METRICS[metric].title
    figure = Figure(figsize=(max(0.4 + 3.1 * across, 4.4), 0.3 + 2.5 * down), label=f"{title} against numeric axes")
    for number, (name, scored) in enumerate(shown):
        row, column = divmod(number, across)
        axes = panel(figure, 0.6 + 3.1 * column, 0.5 + 2.5 * (down - 1 - row), 2.4, 1.75)
        _panel(axes, name, scored, metric)
        if number == 0:
            axes.set_ylabel(f"{title}, {METRICS[metric].unit}")
            looks = {"best cell": _BEST, "mean": _MEAN, "a cell": _DOTS}
            place = {"loc": "lower left", "bbox_to_anchor": (-0.2, 1.0), "ncols": 3}
            legend(axes, [key(look) for look in looks.values()], list(looks), **place)
    if len(found) > MOST_PANELS:
        figure.text(0.99, 0.01, f"{MOST_PANELS} of {len(found)} axes", ha="right", va="bottom", fontsize=8)
    return figure


def numeric_axes(grid: Sequence[Place], metric: str) -> dict[str, Scored]:
    """By name of a number that takes several values: where cells have it, and what they score."""
    found: dict[str, list[tuple[float, float]]] = {}
    for place in grid:
        value = place.mean_of(metric)
        if value is not None:
            for name, number in _numbers(place):
                found.setdefault(name, []).append((number, value))
    return {name: scored for name, scored in found.items() if len({number for number, _ in scored}) > 1}


def _numbers(place: Place) -> Iterator[tuple[str, float]]:
    result = place.finished[0]
    cell: Cell = result.cell
    for side, strategy in (("init", cell.init), ("deploy", cell.deploy)):
        yield from ((f"{side} {strategy.name}: {name}", number) for name, number in _only_numbers(dict(strategy)))
    if place.merges:
        name = cell.technique.name
        yield from ((f"{name}: {parameter}", number) for parameter, number in _only_numbers(cell.technique.params))
    yield "steps on a task", float(cell.setting.trainings[0].steps)
    for _, size in _only_numbers({"bytes": (result.weights or {}).get("bytes")}):
        yield "size of the model, MB", size / 1e6


def _only_numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def _panel(axes: Any, name: str, scored: Scored, metric: str) -> None:
    by_value: dict[float, list[float]] = {}
    for number, value in scored:
        by_value.setdefault(number, []).append(value)
    at = sorted(by_value)
    if len(scored) <= MOST_DOTS:
        axes.plot(*zip(*scored, strict=True), **_DOTS)
    else:
        ends = [(min(by_value[number]), max(by_value[number])) for number in at]
        axes.vlines(at, *zip(*ends, strict=True), color=FAINT, alpha=0.5)
    axes.plot(at, [min(by_value[number], key=METRICS[metric].loss) for number in at], **_BEST)
    axes.plot(at, [mean(by_value[number]) for number in at], **_MEAN)
    axes.set_xlabel(short(name, 40))
    if at[0] > 0 and at[-1] / at[0] > WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")  # without powers, which are mathematics
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.locator_params(nbins=5)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
