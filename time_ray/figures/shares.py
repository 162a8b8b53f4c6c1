"""Which axis matters: shares of the variance between cells as bars, as served and at best lengths."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from time_ray.analysis.axis_importance import AxisImportance
from time_ray.core.importance import Importance, Share
from time_ray.figures.style import BLUE, INK, ORANGE, legend, panel

MOST = 12  # effects


def shares(found: AxisImportance) -> Figure | None:
    """The largest effects, each with its 95 % interval where there are seeds; None if all cells are equal."""
    largest = sorted(found.at_one.shares, key=lambda share: -share.value)[:MOST]
    if not largest or largest[0].value == 0:
        return None
    both = [("as served", found.at_one, {"color": BLUE})]
    if found.at_best is not None:
        both.append(("at best lengths", found.at_best, {"color": ORANGE, "hatch": "////"}))
    names = [_named(share) for share in largest]
    beside, height = 0.3 + 0.075 * max(map(len, names)), (0.2 + 0.16 * len(both)) * len(names)
    label = f"share of the variance of {found.criterion.metric.title} between cells"
    figure = Figure(figsize=(beside + 5.2, height + 1.2), label=label)
    axes = panel(figure, beside, 0.5, 4.9, height)
    bars = [_bars(axes, largest, some, look, number, len(both)) for number, (_, some, look) in enumerate(both)]
    axes.set_title(label, x=-(beside - 0.15) / 4.9, pad=10 + 14 * (len(both) > 1))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share" + (", with its 95 % interval" if len(found.seeds) > 1 else "; one seed: no intervals"))
    if len(both) > 1:
        place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 2, "borderaxespad": 0.1}
        legend(axes, bars, [name for name, *_ in both], **place)
    return figure


def _bars(axes: Any, largest: list[Share], found: Importance, look: dict[str, Any], number: int, count: int) -> Any:
    by_axes = {share.axes: share for share in found.shares}
    thick = 0.8 / count
    places = np.arange(len(largest)) + thick * (number - (count - 1) / 2)
    own = [by_axes[share.axes] for share in largest]
    bars = axes.barh(places, [share.value for share in own], thick, edgecolor="white", linewidth=0.4, **look)
    for place, share in zip(places, own, strict=True):
        if share.interval is not None:
            axes.plot(share.interval, (place, place), color=INK, linewidth=1.1, marker="|", markersize=5)
    return bars


def _named(share: Share) -> str:
    return " × ".join(share.axes) or "more than three axes"
