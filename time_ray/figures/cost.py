"""What a sweep cost: seconds by stage, every model once, against cells that share nothing."""

from typing import Any

from matplotlib.figure import Figure

from time_ray.analysis.costs import STAGES, Costs, Seconds
from time_ray.analysis.ranking import Ranking
from time_ray.figures.style import BLUE, GREEN, INK, ORANGE, VERMILION, legend, panel

_OF_STAGE: dict[str, dict[str, Any]] = {
    "init": {"color": ORANGE, "hatch": "--"},
    "train": {"color": BLUE, "hatch": ""},
    "deploy": {"color": VERMILION, "hatch": "//"},
    "eval": {"color": GREEN, "hatch": "\\\\"},
}
_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def cost_by_stage(spent: Costs, ranked: Ranking) -> Figure | None:
    """Bars of all cells, with every model counted once and counted for each cell; and of the leader's cell.

    None where nothing has taken any time.
    """
    if not sum(spent.total.values()):
        return None
    figure = Figure(figsize=(7.6, 1.75 + 1.35 * bool(ranked.rows)), label="cost by stage")
    everything = {"each model once": spent.total, "if nothing was shared": spent.unshared}
    axes = panel(figure, 1.75, 0.5 + 1.35 * bool(ranked.rows), 4.9, 0.85)
    bars = _bars(axes, everything)
    axes.set_title("all cells", x=-0.33)
    legend(axes, bars, list(STAGES), loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.1)
    if ranked.rows:
        axes = panel(figure, 1.75, 0.5, 4.9, 0.7)
        _bars(axes, _of_leader(spent, ranked))
        axes.set_title("the leader's cell", x=-0.33)
    return figure


def _of_leader(spent: Costs, ranked: Ranking) -> dict[str, Seconds]:
    own, shared = spent.by_cell[ranked.winner.cell.key]
    return {"its own": own, "shared with others": shared}


def _bars(axes: Any, rows: dict[str, Seconds]) -> list[Any]:
    """A row each, one stage behind the other; what they sum to stands at their end."""
    totals = {name: sum(seconds.values()) for name, seconds in rows.items()}
    unit, worth = _unit(max(totals.values()))
    names, left, bars = list(rows), [0.0] * len(rows), []
    for stage in STAGES:
        widths = [rows[name][stage] / worth for name in names]
        look = {"edgecolor": "white", "linewidth": 0.4, **_OF_STAGE[stage]}
        bars.append(axes.barh(range(len(names)), widths, 0.7, left=left, **look))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, name in enumerate(names):
        own, ratio = _unit(totals[name])
        axes.text(left[place], place, f" {totals[name] / ratio:.1f} {own}", va="center", color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(left) * 1.15 or 1.0)
    axes.set_xlabel(unit, labelpad=0)
    return bars


def _unit(seconds: float) -> tuple[str, float]:
    return next((one for one in _UNITS if seconds >= 2 * one[1]), _UNITS[-1])
