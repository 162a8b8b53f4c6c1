"""What every cell scores: init against deploy, a panel for each technique, model and budget."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from time_ray.analysis.ranking import Ranking
from time_ray.core.metrics import METRICS
from time_ray.figures.maps import (
    LETTER,
    Values,
    bare,
    key_of_scale,
    label_axes,
    paint,
    room_below,
    room_beside,
    scale_of,
    write,
)
from time_ray.figures.places import Place, places, varying
from time_ray.figures.style import INK, panel, short
from time_ray.results import CellResult

MOST_PANELS, MOST_LEVELS = 12, 16  # panels of a figure, and rows or columns of a panel
ROOM_FOR_VALUES = 8  # columns, beyond which values are smaller
ACROSS, GAP, TITLE = 9.5, 0.25, 0.3  # inches that panels share, between them, and above each

Panel = tuple[str, ...]  # values of the axes that are not those of rows and columns


def heat_map(results: Sequence[CellResult], ranked: Ranking, metric: str) -> Figure | None:
    """The metric of every place of the grid as served, on all test images, mean over finished seeds.

    The leader has a star and a thick frame, what may be the best a circle and a dashed one. What is not finished is
    hatched, what is not in the grid is blank. Of many panels, rows and columns those with the best values are shown,
    and the title says so.
    """
    grid = places(results, ranked)
    values = {id(place): place.mean_of(metric) for place in grid}
    if all(value is None for value in values.values()):
        return None
    axes_of_panels = [name for name in varying([place.axes for place in grid]) if name not in ("init", "deploy")]
    shown = _Shown(grid, metric, axes_of_panels)
    return _Drawing(shown, ranked, metric).figure()


class _Shown:
    """Rows, columns and panels that are shown: all of them, or those with the best values."""

    def __init__(self, grid: Sequence[Place], metric: str, axes_of_panels: Sequence[str]) -> None:
        self.metric = METRICS[metric]
        self.axes_of_panels = axes_of_panels
        self._losses = [(place, self.metric.loss(place.mean_of(metric))) for place in grid]
        self.left_out: list[str] = []
        self.rows = [name for (name,) in self._best("inits", ["init"], MOST_LEVELS)]
        self.columns = [name for (name,) in self._best("deploys", ["deploy"], MOST_LEVELS)]
        self.panels = self._best("panels", axes_of_panels, MOST_PANELS)
        self.by_place = {(self.panel_of(one), one.axes["init"], one.axes["deploy"]): one for one in grid}

    def panel_of(self, place: Place) -> Panel:
        """The panel that a place is in."""
        return tuple(place.axes[name] for name in self.axes_of_panels)

    def values(self, panel_of: Panel) -> Values:
        """Of one panel; NaN where nothing is finished."""
        found = [[self.by_place.get((panel_of, row, column)) for column in self.columns] for row in self.rows]
        name = self.metric.name
        return np.array([[np.nan if one is None else _or_nan(one.mean_of(name)) for one in line] for line in found])

    def there(self, panel_of: Panel) -> NDArray[np.bool_]:
        """Which places of one panel are in the grid."""
        return np.array([[(panel_of, row, column) in self.by_place for column in self.columns] for row in self.rows])

    def _best(self, what: str, axes: Sequence[str], most: int) -> list[Panel]:
        """The values on these axes, in the order of the grid."""
        losses: dict[Panel, float] = {}
        for place, loss in self._losses:
            name = tuple(place.axes[axis] for axis in axes)
            losses[name] = min(loss, losses.get(name, loss))
        if len(losses) > most:
            self.left_out.append(f"{most} best of {len(losses)} {what}")
        kept = sorted(losses, key=losses.__getitem__)[:most]
        return [name for name in losses if name in kept]


class _Drawing:
    """Where everything lies, in inches."""

    def __init__(self, shown: _Shown, ranked: Ranking, metric: str) -> None:
        self.shown, self.ranked, self.metric = shown, ranked, METRICS[metric]
        self.maps = {name: shown.values(name) for name in shown.panels}
        self.there = {name: shown.there(name) for name in shown.panels}
        self.scale = scale_of(np.array([*self.maps.values()]), higher_is_better=self.metric.higher_is_better)
        self.width = max(len(shown.columns) * (0.66 if len(shown.columns) <= ROOM_FOR_VALUES else 0.5), 2.1)
        self.height = len(shown.rows) * 0.38
        self.left, self.below = room_beside(shown.rows), room_below(shown.columns)
        self.across = min(len(shown.panels), max(1, int((ACROSS - self.left) / (self.width + GAP))))

    def figure(self) -> Figure:
        """The panels, the scale, and what signs mean."""
        down = -(-len(self.shown.panels) // self.across)
        step = self.height + self.below + TITLE
        right, top = self.left + self.across * (self.width + GAP), 0.35 + down * step
        figure = Figure(figsize=(max(right + 0.6, 5.6), top + 0.4), label=f"{self.metric.title} by init and deploy")
        for number, name in enumerate(self.shown.panels):
            row, column = divmod(number, self.across)
            at = self.left + column * (self.width + GAP), top - row * step - TITLE - self.height
            self._panel(panel(figure, *at, self.width, self.height), name, self.shown.rows if column == 0 else ())
        key = panel(figure, right, top - TITLE - self.height, 0.12, self.height)
        bare(key, 1, 1)
        key_of_scale(key, self.scale, (0, 1, 1, 0))
        across, up = figure.get_size_inches()
        figure.text(0.1 / across, 1 - 0.1 / up, self._title, va="top", fontsize=11)
        figure.text(0.1 / across, 0.1 / up, self._signs, va="bottom", fontsize=8)
        return figure

    @property
    def _title(self) -> str:
        left_out = f" ({', '.join(self.shown.left_out)})" if self.shown.left_out else ""
        unit = self.metric.unit
        return f"{self.metric.title}, {unit}, after the last task: rows init, columns deploy{left_out}"

    @property
    def _signs(self) -> str:
        said = ["★ leader"] if self.ranked.rows else []
        if len(self.ranked.tied) > 1:
            said.append("○ may be the best, too")
        if any(row.length != 1 for row in self.ranked.rows):
            said[-1] += " (at best lengths; values are as served)"
        if any(np.isnan(values[self.there[name]]).any() for name, values in self.maps.items()):
            said.append("hatched: not finished")
        if not all(there.all() for there in self.there.values()):
            said.append("blank: not in the grid")
        return "; ".join(said)

    def _panel(self, axes: Any, name: Panel, rows: Sequence[str]) -> None:
        values = self.maps[name]
        axes.set_title(short(", ".join(name), int(self.width / LETTER)), fontsize=9, pad=4)
        bare(axes, len(self.shown.columns), len(self.shown.rows))
        paint(axes, values, self.scale, there=self.there[name])
        label_axes(axes, rows, dict(enumerate(self.shown.columns)))
        for row, column in np.argwhere(~np.isnan(values)):
            place = self.shown.by_place[name, self.shown.rows[row], self.shown.columns[column]]
            self._cell(axes, (int(row), int(column)), float(values[row, column]), place)

    def _cell(self, axes: Any, at: tuple[int, int], value: float, place: Place) -> None:
        leads = place.row is not None and place.row is self.ranked.leader
        tied = not leads and place.row is not None and bool(place.row.tied)
        sign = " ★" if leads else " ○" if tied else ""
        lacks = f"\n{len(place.finished)} of {place.asked} seeds" if len(place.finished) < place.asked else ""
        small = len(self.shown.columns) > ROOM_FOR_VALUES
        size = 5.5 if lacks else 6.5 if small else 8.5
        write(axes, at, value, f"{value:.1f}{sign}{lacks}", self.scale, fontsize=size, weight="bold" if leads else None)
        if leads or tied:
            look = {"linewidth": 2.4} if leads else {"linewidth": 1.2, "linestyle": (0, (3, 2))}
            frame = Rectangle((at[1] + 0.03, at[0] + 0.03), 0.94, 0.94, facecolor="none", edgecolor=INK, **look)
            axes.add_patch(frame)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
