"""Maps: rectangles coloured by value on one scale, each with its value where there is room for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from time_ray.figures.style import FAINT, INK, SCALE, STEPS, short

Values = NDArray[np.float64]  # [rows, columns]; NaN where there is none

LIGHT = 0.5  # from this luminance on, ink is read on a colour
SHADES = 20  # of the key
LETTER = 0.078  # inches that a letter of a label takes


def scale_of(values: Values, *, higher_is_better: bool = True) -> tuple[Normalize, Any]:
    """From the lowest to the highest of the values, which are not all NaN; what is better is lighter."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    pad = 0.5 if high == low else 0.0
    return Normalize(low - pad, high + pad), mpl.colormaps[SCALE if higher_is_better else f"{SCALE}_r"]


def paint(
    axes: Any, values: Values, scale: tuple[Normalize, Any], top: float = 0.0, there: NDArray[np.bool_] | None = None
) -> None:
    """The rectangles, of size 1; the first row begins at `top`. What is there and has no value is hatched."""
    norm, colours = scale
    rows, columns = values.shape
    edges = np.arange(columns + 1), top + np.arange(rows + 1)
    axes.pcolormesh(*edges, np.ma.masked_invalid(values), norm=norm, cmap=colours, edgecolor="white", linewidth=0.4)
    for row, column in np.argwhere(np.isnan(values) & (True if there is None else there)):
        look: dict[str, Any] = {"facecolor": "none", "edgecolor": FAINT, "hatch": "////", "linewidth": 0.4}
        axes.add_patch(Rectangle((column, top + row), 1, 1, **look))


def bare(axes: Any, columns: int, rows: float) -> None:
    """So many columns and rows of size 1, the first of them on top, and nothing around them."""
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()


def write(
    axes: Any, place: tuple[float, float], value: float, text: str, scale: tuple[Normalize, Any], **look: Any
) -> None:
    """The text in the rectangle of a row and a column, in what is read on its colour."""
    norm, colours = scale
    red, green, blue, _ = colours(norm(value))
    ink = INK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > LIGHT else "white"
    row, column = place
    axes.text(column + 0.5, row + 0.5, text, color=ink, ha="center", va="center", **look)


def label_axes(axes: Any, rows: Sequence[str], columns: Mapping[int, str], top: float = 0.0) -> None:
    """Names of the rows at the left, from `top` on, and of some columns below, by number; long ones are slanted.

    They are texts: as ticks of axes they would take three times as long to draw.
    """
    for row, name in enumerate(rows):
        axes.text(-0.02, top + row + 0.5, short(name), ha="right", va="center", transform=axes.get_yaxis_transform())
    slanted = room_below([*columns.values()]) > 0.25
    look = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slanted else {"ha": "center"}
    for column, name in columns.items():
        place = column + 0.5, -0.06 / axes.bbox.height * axes.figure.dpi
        axes.text(*place, short(name, 22), va="top", transform=axes.get_xaxis_transform(), **look)


def room_beside(rows: Sequence[str]) -> float:
    """Inches for the names of rows."""
    return 0.2 + LETTER * max(len(short(name)) for name in rows)


def room_below(columns: Sequence[str]) -> float:
    """Inches for the names of columns."""
    longest = max((len(short(name, 22)) for name in columns), default=0)
    return 0.25 if longest <= 6 else 0.3 + LETTER * longest / 2


def key_of_scale(axes: Any, scale: tuple[Normalize, Any], place: tuple[float, float, float, float]) -> None:
    """The scale as a bar with numbers at its right: left, right, bottom and top of the bar, as the axes count."""
    norm, colours = scale
    left, right, bottom, top = place
    shares = np.linspace(0, 1, SHADES + 1)
    middles = np.array(norm.inverse((shares[:-1, None] + shares[1:, None]) / 2))
    edges = bottom + (top - bottom) * shares
    axes.pcolormesh([left, right], edges, middles, norm=norm, cmap=colours, edgecolor="face", clip_on=False)
    inches = abs(top - bottom) / abs(np.subtract(*axes.get_ylim())) * axes.bbox.height / axes.figure.dpi
    low, high = np.array(norm.inverse(shares[[0, -1]]))
    for value in MaxNLocator(max(1, min(5, int(inches / 0.3))), steps=STEPS).tick_values(low, high):
        if low <= value <= high:
            height = bottom + (top - bottom) * (value - low) / (high - low)
            axes.text(right + 0.4 * (right - left), height, f"{value:g}", va="center")
