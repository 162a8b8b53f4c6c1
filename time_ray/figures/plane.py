"""The plane of knowledge accumulation (KA) and zero-shot retention (ZS): a point a cell, lines of equal GM."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from time_ray.analysis.contenders import AXES
from time_ray.analysis.ranking import Ranked, Ranking
from time_ray.core.metrics import OF_THE_PAPER
from time_ray.core.statistics import deviation
from time_ray.figures.chosen import Chosen, baselines
from time_ray.figures.places import varying
from time_ray.figures.series import over_tasks
from time_ray.figures.style import DASHES, FAINT, INK, MARKERS, PALETTE, key, legend, panel, short

FILLS = ("full", "none", "left", "top", "right", "bottom")
STRATEGIES = {name: place for place, name in enumerate(("zs", "ft", "ema", "all", "window", "outer"))}
MARGIN = 0.12  # of the range of the points, on each side
MOST_NAMED = 200  # beyond so many cells, those of a look are one object, without a name each
MOST_CROSSED = 60  # beyond so many, only the leader has a cross
WIDTH, HEIGHT = 6.4, 4.6  # of the plane, in inches
PAPER = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}  # under text

Look = dict[str, Any]


class _Style(NamedTuple):
    """What tells a cell from others; by default it says nothing."""

    colour: str = FAINT
    marker: str = MARKERS[0]
    fill: str = FILLS[0]


class _Point(NamedTuple):
    """A row of the ranking where it lies: means over seeds, as it was served."""

    row: Ranked
    ka: float
    zs: float

    @property
    def name(self) -> str:
        axes = self.row.contender.axes
        return f"{axes['init']} / {axes['deploy']}, {axes['technique']}"


def plane(ranked: Ranking, title: str = "") -> Figure | None:
    """Colour by init, marker by deploy, filling by technique, or by what else varies; the leader by name.

    None where KA or ZS is not defined.
    """
    points = _points(ranked.rows)
    if not points:
        return None
    others = [*baselines(ranked)]
    channels = _channels(ranked.rows)
    lines = sum(2 + sum(_wrapped(label).count("\n") + 1 for label in channel.shown) for channel in channels) + 10
    height = max(HEIGHT, 0.17 * lines)
    figure = Figure(figsize=(WIDTH + 2.9, height + 1.15), label="KA against ZS of all cells")
    axes = panel(figure, 0.65, 0.55, WIDTH, height)
    paths = [_Path(one) for one in _walked(ranked, others)]
    _limit(axes, [(point.ka, point.zs) for point in points] + [place for path in paths for place in path.places])
    _frame(axes, title or _title(ranked, len(points)))
    _equal_gm(axes)
    _front(axes, points)
    for path in paths:
        path.draw(axes)
    _cells(axes, points, channels)
    _crosses(axes, points)
    _baselines(axes, others)
    _name_leader(axes, points[0])
    left_out = _left_out(ranked.rows, channels)
    _legends(axes, height, channels, left_out, crossed=len(ranked.seeds) > 1)
    return figure


def _points(rows: Sequence[Ranked]) -> list[_Point]:
    """Of the rows, which are best first; none if one of them has no ZS, since then none has."""
    places = [(row, row.mean_of("ka"), row.mean_of("zs")) for row in rows]
    return [_Point(row, ka, zs) for row, ka, zs in places if ka is not None and zs is not None]


def _title(ranked: Ranking, count: int) -> str:
    tasks = len(ranked.leader.results[0].rows) - 1
    seeds = f", means of {len(ranked.seeds)} seeds" if len(ranked.seeds) > 1 else ""
    return f"{count} different cell{'s' * (count != 1)} after {tasks} tasks{seeds}"


class _Channel(NamedTuple):
    """An axis of the grid, and a style for each of its values: for each name without parameters where they are many."""

    axis: str
    styles: Mapping[str, str]  # by value; none where even names are too many
    shown: Mapping[str, str]  # by what the legend says

    @property
    def is_whole(self) -> bool:
        """Whether every value has a style of its own."""
        return self.styles.keys() == self.shown.keys()


def _channels(rows: Sequence[Ranked]) -> tuple[_Channel, _Channel, _Channel]:
    """Those of colour, marker and filling."""
    axes = [row.contender.axes for row in rows]
    third = next((name for name in AXES[2:] if name in varying(axes)), "technique")
    return (
        _channel("init", _strategies({one["init"] for one in axes}), PALETTE),
        _channel("deploy", _strategies({one["deploy"] for one in axes}), MARKERS),
        _channel(third, list(dict.fromkeys(one[third] for one in axes)), FILLS),
    )


def _channel(axis: str, values: Sequence[str], styles: Sequence[str]) -> _Channel:
    names = {value: value for value in values}
    if len(values) > len(styles):
        names = {value: value.partition("(")[0] for value in values}
    different = list(dict.fromkeys(names.values()))
    if len(different) > len(styles):
        return _Channel(axis, {}, {})
    shown = dict(zip(different, styles, strict=False))
    return _Channel(axis, {value: shown[name] for value, name in names.items()}, shown)


def _left_out(rows: Sequence[Ranked], channels: Sequence[_Channel]) -> list[str]:
    """What cells differ on, and the plane does not show."""
    by_axis = {channel.axis: channel for channel in channels}
    found = []
    for name in varying([row.contender.axes for row in rows]):
        channel = by_axis.get(name)
        if channel is None or not channel.styles:
            found.append(name)
        elif not channel.is_whole:
            found.append(f"parameters of {name}")
    return found


def _strategies(labels: Iterable[str]) -> list[str]:
    """In the order of TIME's table, those with parameters behind the plain ones, and others last."""
    return sorted(labels, key=lambda label: (STRATEGIES.get(label.partition("(")[0], len(STRATEGIES)), label))


def _look(style: _Style, size: float = 8.0) -> Look:
    """A hollow marker is larger: it shows around what it coincides with."""
    return {
        "linestyle": "none",
        "marker": style.marker,
        "markersize": size * 1.45 if style.fill == "none" else size,
        "fillstyle": style.fill,
        "markerfacecolor": style.colour,
        "markerfacecoloralt": "white",
        "markeredgecolor": style.colour,
        "markeredgewidth": 0.16 * size,
    }


def _cells(axes: Any, points: Sequence[_Point], channels: Sequence[_Channel]) -> None:
    """The best are on top. Few cells have a name each; many of one look are one object."""
    size = float(np.clip(8 * (60 / len(points)) ** 0.3, 3.0, 8.0))
    few = len(points) <= MOST_NAMED
    groups: dict[tuple[_Style, str], list[_Point]] = {}
    for point in reversed(points):
        groups.setdefault((_style(point, channels), point.name if few else ""), []).append(point)
    for (style, name), alike in groups.items():
        x, y = [point.ka for point in alike], [point.zs for point in alike]
        axes.plot(x, y, gid=f"cell {name}" if few else None, zorder=3, **_look(style, size))


def _style(point: _Point, channels: Sequence[_Channel]) -> _Style:
    axes = point.row.contender.axes
    parts = zip(_Style._fields, channels, strict=True)
    return _Style(**{part: one.styles[axes[one.axis]] for part, one in parts if one.styles})


def _crosses(axes: Any, points: Sequence[_Point]) -> None:
    """A standard deviation over seeds to each side."""
    lines = []
    for point in points if len(points) <= MOST_CROSSED else points[:1]:
        sds = [
            deviation([value for one in point.row.results if (value := one.final[name]) is not None])
            for name in ("ka", "zs")
        ]
        if sds[0] is not None and sds[1] is not None:
            lines.append([(point.ka - sds[0], point.zs), (point.ka + sds[0], point.zs)])
            lines.append([(point.ka, point.zs - sds[1]), (point.ka, point.zs + sds[1])])
    axes.add_collection(LineCollection(lines, colors=FAINT, linewidths=0.7, zorder=2.5), autolim=False)


class _Path:
    """Where a cell was after each task."""

    def __init__(self, one: Chosen) -> None:
        ka, zs = over_tasks(one.results, "ka"), over_tasks(one.results, "zs")
        self.places = list(zip(ka.means, zs.means, strict=True)) if ka and zs else []
        self._leads = one.role == "leader"

    def draw(self, axes: Any) -> None:
        """A line from the base on, with a dot a task."""
        look = {"color": INK if self._leads else FAINT, "linestyle": DASHES[0] if self._leads else DASHES[1]}
        axes.plot(*zip(*self.places, strict=True), marker=".", markersize=4, linewidth=0.9, zorder=2, **look)


def _walked(ranked: Ranking, others: Sequence[Chosen]) -> list[Chosen]:
    """The leader, and plain fine-tuning."""
    return [Chosen("leader", "leader", ranked.leader.results), *(one for one in others if one.name == "ft/ft")]


def _limit(axes: Any, places: Sequence[tuple[float, float]]) -> None:
    for values, put in zip(zip(*places, strict=True), (axes.set_xlim, axes.set_ylim), strict=True):
        pad = max(1.0, MARGIN * (max(values) - min(values)))
        put(max(0.0, min(values) - pad), max(values) + pad)


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, pad=24, fontsize=11)
    axes.set_xlabel("KA, knowledge accumulation: accuracy on what the stream teaches, %")
    axes.set_ylabel("ZS, zero-shot retention: accuracy on held-out data, %")


def _equal_gm(axes: Any) -> None:
    """Lines on which the geometric mean is the same, each with its value at its upper end."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = np.linspace(max(left, 0.1), right, 200)
    words = {"textcoords": "offset points", "fontsize": 8, "color": FAINT}
    for level in MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values((left * bottom) ** 0.5, (right * top) ** 0.5):
        y = level**2 / x
        seen = (y >= bottom) & (y <= top)
        if not seen.any():
            continue
        axes.plot(x[seen], y[seen], color=FAINT, linewidth=0.7, linestyle=(0, (4, 3)), alpha=0.7, zorder=1)
        if left <= level**2 / top <= right:
            axes.annotate(f"GM {level:g}", (level**2 / top, top), (0, 3), ha="center", va="bottom", **words)
        elif bottom <= y[0] <= top:
            axes.annotate(f"GM {level:g}", (x[0], y[0]), (5, 1), ha="left", va="bottom", **words)


def _front(axes: Any, points: Sequence[_Point]) -> None:
    """What no other cell beats on both."""
    front = sorted((point.ka, point.zs) for point in points if point.row.pareto)
    axes.plot(*zip(*front, strict=True), color=INK, linewidth=5, alpha=0.13, solid_capstyle="round", zorder=1.5)


def _baselines(axes: Any, others: Sequence[Chosen]) -> None:
    marks = {"base": ("*", 15, "base, untrained"), "multitask": ("X", 10, "multitask"), "ft/ft": (".", 1, "ft/ft")}
    for one in others:
        marker, size, text = marks[one.name]
        ka, zs = over_tasks(one.results, "ka"), over_tasks(one.results, "zs")
        if ka and zs:
            place = ka.means[-1], zs.means[-1]
            axes.plot(*place, gid=one.name, marker=marker, markersize=size, color=INK, zorder=3)
            axes.annotate(text, place, (11, 0), textcoords="offset points", va="center", bbox=PAPER, zorder=3.5)


def _name_leader(axes: Any, leader: _Point) -> None:
    """Above its point; the text ends where the plot does."""
    gm = leader.row.mean_of(OF_THE_PAPER[-1])
    axes.annotate(
        f"Best-in-TIME: GM {gm:.1f}\n{short(leader.name, 60)}",
        (leader.ka, leader.zs),
        (max(axes.get_xlim()), leader.zs + 0.09 * (axes.get_ylim()[1] - axes.get_ylim()[0])),
        ha="right",
        va="bottom",
        gid="best",
        bbox=PAPER,
        arrowprops={"arrowstyle": "-", "color": INK, "shrinkB": 5, "relpos": (0.5, 0)},
        zorder=4,
    )


def _wrapped(label: str) -> str:
    """A label with its parameters below it."""
    name, *said = label.removesuffix(")").replace("(", "\n").replace(",", "\n").split("\n")
    return "\n".join([short(name, 24), *(f"  {short(one.strip(), 24)}" for one in said)])


def _legends(axes: Any, height: float, channels: Sequence[_Channel], left_out: Sequence[str], *, crossed: bool) -> None:
    """Beside the plot, one below the other."""
    top = 1.0
    for part, channel in zip(_Style._fields, channels, strict=True):
        if channel.shown:
            looks = [_look(_Style(**{part: style})) for style in channel.shown.values()]
            top = _legend(axes, height, top, channel.axis, looks, [_wrapped(label) for label in channel.shown])
    signs: dict[str, Look] = {
        "path of the leader": {"color": INK, "marker": ".", "linewidth": 0.9},
        "path of ft/ft": {"color": FAINT, "linestyle": DASHES[1], "marker": ".", "linewidth": 0.9},
        "Pareto front": {"color": INK, "linewidth": 5, "alpha": 0.13},
        "equal GM": {"color": FAINT, "linewidth": 0.7, "linestyle": (0, (4, 3))},
    }
    if crossed:
        signs["± sd over seeds"] = {"color": FAINT, "marker": "+", "linestyle": "none", "markersize": 9}
    top = _legend(axes, height, top, "lines", list(signs.values()), list(signs))
    if left_out:
        axes.text(
            1.03,
            top - 0.1 / height,
            "\n".join(["not told apart:", *left_out]),
            va="top",
            fontsize=8,
            transform=axes.transAxes,
        )


def _legend(axes: Any, height: float, top: float, title: str, looks: Sequence[Look], labels: Sequence[str]) -> float:
    """Where the next one begins."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.02, top), "borderaxespad": 0.0, "labelspacing": 0.35}
    legend(axes, [key(look) for look in looks], labels, title=title, title_fontproperties={"weight": "bold"}, **place)
    lines = sum(label.count("\n") + 1 for label in labels)
    return top - (0.3 + 0.165 * lines + 0.045 * len(labels)) / height
