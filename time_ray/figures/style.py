"""How figures look, and how they become SVG: one palette, names as they are written, equal figures as equal bytes."""

import io
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, overload

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

INK, FAINT, PALE = "#222222", "#6b6b6b", "#d9d9d9"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
"""The palette of Okabe and Ito, which people who see fewer colours tell apart."""

PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
SCALE = "cividis"  # of values in a map: its lightness rises with them, so it is read in grey, too

STEPS = (1, 2, 2.5, 5, 10)  # between round values

_STYLE = {
    "svg.hashsalt": "time_ray",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # where it is, without looking for room
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a name may hold a dollar
    "hatch.linewidth": 0.8,
}
_DRAWING = threading.Lock()  # matplotlib's settings are those of the whole process


@overload
def drawn(build: Callable[[], Figure], *, outlines: bool = False) -> bytes: ...
@overload
def drawn(build: Callable[[], Figure | None], *, outlines: bool = False) -> bytes | None: ...
def drawn(build: Callable[[], Figure | None], *, outlines: bool = False) -> bytes | None:
    """The figure as SVG, on white for both themes; None where there is nothing to draw.

    It is built and written under settings of its own, whatever those of matplotlib are.

    Args:
        build: Makes the figure; its label is the title of the image, for those who do not see it.
        outlines: Text as shapes, for pages where no font is sure. Else text is text: it is found and read aloud.

    """
    out = io.BytesIO()
    with _DRAWING, mpl.rc_context(_settings(outlines=outlines)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # readers have more fonts than we measure by
        figure = build()
        if figure is None:
            return None
        about = {"Date": None, "Creator": None, "Title": str(figure.get_label())}
        figure.savefig(out, format="svg", facecolor="white", metadata=about)
    return out.getvalue()


def short(name: str, most: int = 28) -> str:
    """A name that people chose, in one line of at most so many characters: its beginning and its end."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail - 1].rstrip()}…{line[-tail:].lstrip()}"


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place of the figure, in inches from its lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def legend(axes: Any, handles: Sequence[Any], labels: Sequence[str], **place: Any) -> None:
    """A legend beside others, without a frame."""
    kept = [f" {label}" if label.startswith("_") else label for label in labels]  # else matplotlib leaves it out
    axes.add_artist(Legend(axes, handles, kept, frameon=False, alignment="left", **place))


def key(look: dict[str, Any]) -> Line2D:
    """What a legend shows of a line or a marker."""
    return Line2D([], [], **look)


def lightly_ticked(axes: Any, at: Sequence[float], most: int = 5) -> None:
    """Numbers at these places below, and at round values at the left, with faint lines across.

    They are texts: as ticks of axes they would take three times as long to draw.
    """
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    values = [value for value in MaxNLocator(most, steps=STEPS).tick_values(low, high) if low <= value <= high]
    axes.set_xticks([])
    axes.set_yticks([])
    axes.hlines(values, left, right, color="#e6e6e6", linewidth=0.6, zorder=0)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    below, beside = axes.get_xaxis_transform(), axes.get_yaxis_transform()
    for value in values:
        axes.text(-0.015, value, f"{value:g}", ha="right", va="center", transform=beside)
    for place in at:
        axes.text(place, -0.025, f"{place:g}", ha="center", va="top", transform=below)


def whole_ticks(last: int, most: int = 11) -> range:
    """Ticks from 0 at whole numbers: at most so many."""
    return range(0, last + 1, 1 + last // most)


def _settings(*, outlines: bool) -> dict[str, Any]:
    """Ours over matplotlib's own, as far as they are not so already; its backend is no look."""
    own = {name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith("backend")}
    wanted = {**own, **_STYLE, "svg.fonttype": "path" if outlines else "none"}
    return {name: value for name, value in wanted.items() if mpl.rcParams[name] != value}
