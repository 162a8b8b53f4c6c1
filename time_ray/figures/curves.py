"""Curves with bands of a standard deviation over seeds: scores over tasks, and scores over the length of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from time_ray.analysis.ranking import Ranking
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.figures.chosen import Chosen, chosen
from time_ray.figures.series import Series, over_lengths, over_tasks
from time_ray.figures.style import (
    BLUE,
    DASHES,
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    VERMILION,
    key,
    legend,
    lightly_ticked,
    panel,
    short,
    whole_ticks,
)
from time_ray.results import CellResult

Look = dict[str, Any]
Read = Callable[[Sequence[CellResult], str], Series | None]

TASKS = "after so many tasks (0: the base)"
LENGTH = "length α (0: the base, 1: as trained)"
_OF_METRIC: Mapping[str, Look] = {
    "ka": {"color": BLUE, "linestyle": DASHES[1]},
    "zs": {"color": VERMILION, "linestyle": DASHES[2]},
    "gm": {"color": INK, "linestyle": DASHES[0]},
}
_OF_BASELINE: Mapping[str, Look] = {
    "base": {"color": FAINT, "linestyle": DASHES[2]},
    "ft/ft": {"color": FAINT, "linestyle": DASHES[1], "marker": "x", "markersize": 4},
    "multitask": {"color": FAINT, "linestyle": DASHES[3]},
}
_LEADER: Look = {"color": INK, "linestyle": "-", "linewidth": 2.2, "marker": "o", "markersize": 4}


def sweep_over_tasks(ranked: Ranking) -> Figure | None:
    """GM, KA and ZS over tasks, of the leader, of what may be the best and of baselines."""
    return _compared(chosen(ranked), over_tasks, TASKS, "scores over tasks")


def sweep_over_lengths(ranked: Ranking) -> Figure | None:
    """GM, KA and ZS over the length of the last model; None where no other length than 1 was measured."""
    trained = [one for one in chosen(ranked) if one.name not in ("base", "multitask")]
    return _compared(trained, over_lengths, LENGTH, "scores over the length of the last model")


def cell_over_tasks(results: Sequence[CellResult]) -> Figure | None:
    """GM, KA and ZS over tasks of one cell, or of the same cell with several seeds."""
    return _of_one([result for result in results if result.rows], over_tasks, TASKS, "scores over tasks")


def cell_over_lengths(results: Sequence[CellResult]) -> Figure | None:
    """GM, KA and ZS over the length of the last model; None where no other length than 1 was measured."""
    return _of_one(results, over_lengths, LENGTH, "scores over the length of the last model")


def _of_one(results: Sequence[CellResult], read: Read, where: str, title: str) -> Figure | None:
    found = {name: series for name in OF_THE_PAPER if (series := read(results, name)) is not None}
    if not found or any(len(series.at) < 2 for series in found.values()):
        return None
    figure = Figure(figsize=(6.0, 3.4), label=title)
    axes = panel(figure, 0.55, 0.5, 4.4, 2.6)
    seeds = f", mean ± sd of {len(results)} seeds" if len(results) > 1 else ""
    axes.set_title(f"{title}{seeds}")
    for name, series in found.items():
        _curve(axes, series, {"linewidth": 1.8, "marker": MARKERS[0], "markersize": 3.5, **_OF_METRIC[name]})
    _frame(axes, next(iter(found.values())), where, "%")
    _beside(axes, {METRICS[name].title: _OF_METRIC[name] for name in found})
    return figure


def _compared(shown: Sequence[Chosen], read: Read, where: str, title: str) -> Figure | None:
    """A panel for each metric that is defined; names of the lines are below."""
    found = {
        name: [(one, series) for one in shown if (series := read(one.results, name)) is not None]
        for name in ("gm", "ka", "zs")
    }
    found = {name: lines for name, lines in found.items() if any(len(series.at) > 1 for _, series in lines)}
    if not found:
        return None
    looks = _looks(shown)
    below, across = 0.3 + 0.19 * len(shown), 2.85 if len(found) > 1 else 6.0
    figure = Figure(figsize=(0.35 + (across + 0.55) * len(found), 3.4 + below), label=title)
    for number, (name, lines) in enumerate(found.items()):
        axes = panel(figure, 0.5 + (across + 0.55) * number, 0.55 + below, across, 2.5)
        axes.set_title(METRICS[name].title)
        longest = max((series for _, series in lines), key=lambda series: len(series.at))
        for one, found_series in reversed(lines):
            series = _held(found_series, longest) if one.role == "baseline" else found_series
            _curve(axes, series, looks[one.name], shade=0.15 if one.role == "leader" else 0.06)
        _frame(axes, longest, where if number == 0 else "", "%" if number == 0 else "")
        if number == 0:
            names = [short(one.name, 90) for one in shown]
            handles = [key(looks[one.name]) for one in shown]
            legend(axes, handles, names, loc="upper left", bbox_to_anchor=(-0.12, -0.17))
    return figure


def _held(series: Series, longest: Series) -> Series:
    """What is no stream, the base and what was trained on all tasks at once, is a level line."""
    if len(series.at) >= min(3, len(longest.at)):
        return series
    ends = (longest.at[0], longest.at[-1])
    return Series(ends, (series.means[-1],) * 2, series.sds[-1:] * 2)


def _looks(shown: Sequence[Chosen]) -> dict[str, Look]:
    rivals = [one.name for one in shown if one.role == "rival"]
    of_rivals = {
        name: {"color": PALETTE[number], "linestyle": DASHES[number], "marker": MARKERS[number], "markersize": 3.5}
        for number, name in enumerate(rivals)
    }
    return {one.name: _LEADER if one.role == "leader" else {**_OF_BASELINE, **of_rivals}[one.name] for one in shown}


def _curve(axes: Any, series: Series, look: Look, shade: float = 0.15) -> None:
    axes.plot(series.at, series.means, **look)
    if series.sds:
        means, sds = np.array(series.means), np.array(series.sds)
        axes.fill_between(series.at, means - sds, means + sds, color=look["color"], alpha=shade, linewidth=0)


def _frame(axes: Any, series: Series, where: str, unit: str) -> None:
    axes.set_xlabel(where, fontsize=8, labelpad=16)
    axes.set_ylabel(unit, fontsize=8, labelpad=24)
    last = series.at[-1]
    lightly_ticked(axes, whole_ticks(int(last)) if last > 2 else sorted(set(series.at)))


def _beside(axes: Any, looks: Mapping[str, Look]) -> None:
    """What each line is, at the right of the axes."""
    for number, (name, look) in enumerate(looks.items()):
        y = 0.97 - 0.08 * number
        axes.plot([1.02, 1.09], [y, y], transform=axes.transAxes, clip_on=False, **look)
        axes.text(1.11, y, name, va="center", transform=axes.transAxes)
