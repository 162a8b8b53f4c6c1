"""Accuracy on every dataset after every task, of one cell or of its seeds: what is learned, what is kept, and when."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from time_ray.core.grid import Setting
from time_ray.figures.maps import Values, bare, key_of_scale, label_axes, paint, room_beside, scale_of, write
from time_ray.figures.style import VERMILION, panel, whole_ticks
from time_ray.results import CellResult

MOST_WRITTEN = 60  # values, beyond which colours alone say them: a sweep has such a figure of every cell
WIDE, NARROW = 0.42, 0.16  # columns, in inches
TALL, LOW, GAP = 0.24, 0.19, 0.34  # rows, with and without values, and what is above them


def datasets_by_task(results: Sequence[CellResult], most_written: int = MOST_WRITTEN) -> Figure | None:
    """Mean over seeds, by dataset and task: those that the stream teaches above those that are held out.

    A triangle is where the first classes of a dataset arrive; seeds that disagree have a hollow one each.

    Args:
        results: Of one cell, seed by seed.
        most_written: Values, beyond which colours alone say them.

    """
    started = [result for result in results if result.rows]
    if not started:
        return None
    settings = [result.cell.setting for result in started]
    names = [*settings[0].adaptation, *settings[0].evaluation]
    last = min(len(result.rows) for result in started)
    values = np.array([[[row.accuracy[name] for row in one.rows[:last]] for name in names] for one in started])
    return _figure(values.mean(axis=0), names, settings, written=values[0].size <= most_written)


def arrival(setting: Setting, dataset: str) -> int | None:
    """The first task that teaches a class of the dataset; None where none does."""
    tasks = (training.task for training in setting.trainings)
    return next((task.number for task in tasks if any(one.dataset == dataset for one in task.concepts)), None)


def _figure(values: Values, names: Sequence[str], settings: Sequence[Setting], *, written: bool) -> Figure:
    """All of it is in one pair of axes, whose units are rows and columns: each pair takes as long as twenty texts."""
    count, columns = values.shape
    learned = len(settings[0].adaptation)
    kinds = {"learned (KA)": slice(0, learned), "held out (ZS)": slice(learned, count)}
    kinds = {what: part for what, part in kinds.items() if part.start < part.stop}
    row, column = (TALL, WIDE) if written else (LOW, float(np.clip(6 / columns, NARROW, WIDE)))
    rows = count + len(kinds) * GAP / row
    beside, width, height = room_beside(names), columns * column, rows * row
    title = "accuracy by dataset and task"
    figure = Figure(figsize=(max(beside + width, 4.4) + 0.75, height + 1.05), label=title)
    axes = panel(figure, beside, 0.62, width, height)
    bare(axes, columns, rows)
    scale, top = scale_of(values), 0.0
    for what, part in kinds.items():
        top += GAP / row
        axes.text(0, top - 0.06 / row, what)
        _kind(axes, values[part], names[part], scale, top, written=written)
        if part.start == 0:
            _arrivals(axes, names[part], settings, columns, top)
        top += part.stop - part.start
    label_axes(axes, (), {task: str(task) for task in whole_ticks(columns - 1)})
    axes.text(columns / 2, rows + 0.42 / row, "after so many tasks (0: the base)", ha="center", va="bottom", fontsize=8)
    left = columns + 0.12 / column
    key_of_scale(axes, scale, (left, left + 0.12 / column, rows, rows - min(count, 2.0 / row)))
    seeds = f", mean of {len(settings)} seeds" if len(settings) > 1 else ""
    across, up = figure.get_size_inches()
    figure.text(0.1 / across, 1 - 0.1 / up, f"{title}, %{seeds}; ▸ first classes arrive", va="top", fontsize=10)
    return figure


def _kind(axes: Any, rows: Values, names: Sequence[str], scale: Any, top: float, *, written: bool) -> None:
    paint(axes, rows, scale, top)
    label_axes(axes, names, {}, top)
    for (row, column), value in np.ndenumerate(rows) if written else ():
        write(axes, (top + row, column), float(value), f"{value:.0f}", scale, fontsize=7.5)


def _arrivals(axes: Any, names: Sequence[str], settings: Sequence[Setting], columns: int, top: float) -> None:
    """At the left edge of the first task that teaches the dataset."""
    places = [((x, top + y), agreed) for (x, y), agreed in _places(names, settings, columns)]
    for sure, inside in ((True, VERMILION), (False, "white")):
        some = [place for place, agreed in places if agreed is sure]
        if some:
            look = {"markersize": 4.5, "markerfacecolor": inside, "markeredgewidth": 0.8}
            axes.plot(*zip(*some, strict=True), ">", color=VERMILION, clip_on=False, zorder=5, **look)


def _places(
    names: Sequence[str], settings: Sequence[Setting], columns: int
) -> Iterator[tuple[tuple[float, float], bool]]:
    """Where triangles are, and whether all seeds agree on them."""
    for row, name in enumerate(names):
        tasks = {arrival(setting, name) for setting in settings} - {None}
        for task in tasks:
            if task is not None and task < columns:
                yield (task + 0.02, row + 0.5), len(tasks) == 1
