"""What a sweep found: zero-shot retention over knowledge accumulation, one point for each cell."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from time_ray.tools.pictures.svg import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
FILLS = ("full", "none", "left", "top", "right", "bottom")
STRATEGIES = {name: place for place, name in enumerate(("zs", "ft", "ema", "all"))}
MARGIN = 0.12  # of the range of the points, on each side
SIZE, RING = 8.0, 11.5  # of a marker and of a hollow one, in points: a ring shows around what it coincides with
PAPER = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}  # under text


class Point(NamedTuple):
    """A cell on its means over seeds, in percent."""

    init: str
    deploy: str
    technique: str
    ka: float
    zs: float
    gm: float

    @property
    def name(self) -> str:
        """The cell as a reader finds it in the table."""
        return f"{self.init} / {self.deploy}, {self.technique}"


Styles = dict[str, str]  # of the values of one axis


def scores_plot(points: Sequence[Point], bases: Iterable[tuple[float, float]], title: str) -> Figure:
    """The plot: colour by init, marker by deploy, fill by technique, lines of equal GM, the best cell by name.

    Args:
        points: Cells, best first.
        bases: KA and ZS of each pretrained model.
        title: What the points are.

    """
    bases = sorted(set(bases))
    figure = Figure(figsize=(9.0, 5.6))
    axes: Any = figure.add_axes((0.075, 0.1, 0.7, 0.78))
    axes.set_xlim(*_limits([point.ka for point in points] + [ka for ka, _ in bases]))
    axes.set_ylim(*_limits([point.zs for point in points] + [zs for _, zs in bases]))
    _frame(axes, title)
    _equal_gm(axes)
    colours = _styles(_strategies({point.init for point in points}), COLOURS)
    markers = _styles(_strategies({point.deploy for point in points}), MARKERS)
    techniques = list(dict.fromkeys(point.technique for point in points))
    fills = _styles(techniques, FILLS if len(techniques) <= len(FILLS) else FILLS[:1])
    for point in reversed(points):
        look = _look(colours[point.init], markers[point.deploy], fills[point.technique])
        axes.plot(point.ka, point.zs, gid=f"cell {point.name}", zorder=3, **look)
    for ka, zs in bases:
        axes.plot(ka, zs, gid="base", marker="*", markersize=15, color=INK, zorder=3)
        words = {"textcoords": "offset points", "va": "center", "color": INK, "bbox": PAPER}
        axes.annotate("base, untrained", (ka, zs), (13, 0), **words)
    _name_best(axes, points[0])
    _legends(axes, colours, markers, fills)
    return figure


def _limits(values: Sequence[float]) -> tuple[float, float]:
    pad = max(1.0, MARGIN * (max(values) - min(values)))
    return max(0.0, min(values) - pad), max(values) + pad


def _strategies(labels: Iterable[str]) -> list[str]:
    """In the order of TIME's table, those with parameters behind the plain ones, and others last."""
    return sorted(labels, key=lambda label: (STRATEGIES.get(label.partition("(")[0], len(STRATEGIES)), label))


def _styles(labels: Sequence[str], styles: Sequence[str]) -> Styles:
    return dict(zip(labels, cycle(styles), strict=False))


def _look(colour: str, marker: str, fill: str) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": marker,
        "markersize": RING if fill == "none" else SIZE,
        "fillstyle": fill,
        "markerfacecolor": colour,
        "markerfacecoloralt": "white",
        "markeredgecolor": colour,
        "markeredgewidth": 1.3,
    }


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", pad=28, fontsize=11, color=INK)
    axes.set_xlabel("KA, knowledge accumulation: accuracy on what the stream teaches, %", color=INK)
    axes.set_ylabel("ZS, zero-shot retention: accuracy on held-out data, %", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)


def _equal_gm(axes: Any) -> None:
    """Lines on which the geometric mean is the same, each with its value at its upper end."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x = np.linspace(max(left, 0.1), right, 200)
    words = {"textcoords": "offset points", "fontsize": 9, "color": FAINT}
    for level in MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values((left * bottom) ** 0.5, (right * top) ** 0.5):
        axes.plot(x, level**2 / x, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        if left <= level**2 / top <= right:
            axes.annotate(f"GM {level:g}", (level**2 / top, top), (0, 3), ha="center", va="bottom", **words)
        elif bottom <= level**2 / x[0] <= top:
            axes.annotate(f"GM {level:g}", (x[0], level**2 / x[0]), (5, 1), ha="left", va="bottom", **words)


def _name_best(axes: Any, best: Point) -> None:
    """Above its point; the text ends where the plot does."""
    axes.annotate(
        f"Best-in-TIME: GM {best.gm:.1f}\n{best.name}",
        (best.ka, best.zs),
        (max(axes.get_xlim()), best.zs + 0.09 * (axes.get_ylim()[1] - axes.get_ylim()[0])),
        ha="right",
        va="bottom",
        color=INK,
        gid="best",
        bbox=PAPER,
        arrowprops={"arrowstyle": "-", "color": INK, "shrinkB": SIZE / 2 + 1, "relpos": (0.5, 0)},
        zorder=4,
    )


def _legends(axes: Any, colours: Styles, markers: Styles, fills: Styles) -> None:
    """Beside the plot, one below the other."""
    height = 1.0
    for title, looks in (
        ("init", {label: _look(colour, "o", "full") for label, colour in colours.items()}),
        ("deploy", {label: _look(FAINT, marker, "full") for label, marker in markers.items()}),
        ("technique", {label: _look(FAINT, "o", fill) for label, fill in fills.items()}),
    ):
        labels = [label.rstrip(")").replace("(", "\n").replace(",", "\n") for label in looks]
        place: dict[str, Any] = {
            "loc": "upper left",
            "bbox_to_anchor": (1.02, height),
            "frameon": False,
            "alignment": "left",
        }
        handles = [Line2D([], [], **look) for look in looks.values()]
        axes.add_artist(Legend(axes, handles, labels, title=title, title_fontproperties={"weight": "bold"}, **place))
        height -= 0.12 + 0.048 * sum(1 + label.count("\n") for label in labels)
