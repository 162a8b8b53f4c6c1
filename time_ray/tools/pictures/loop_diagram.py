"""The loop of TIME as a diagram: five stages a task, and where its three axes act."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from time_ray.figures.style import FAINT, INK, MARKERS, PALETTE

WIDTH, HEIGHT = 9.2, 4.75  # inches, which are the units of everything below


class Box(NamedTuple):
    """A rectangle by its lower left corner."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def top(self) -> float:
        """Its upper edge."""
        return self.bottom + self.height

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return self.left + self.width / 2, self.bottom + self.height / 2


STAGES = {
    "init": "what training\nstarts from",
    "train": "on the task's data:\na new expert",
    "store": "the expert itself,\nnever a merge",
    "deploy": "what is served\nafter the task",
    "eval": "KA, ZS and their\ngeometric mean",
}
BOXES = {name: Box(0.15 + 1.86 * number, 2.95, 1.46, 0.98) for number, name in enumerate(STAGES)}
INIT, EXPERTS, DEPLOY = Box(0.15, 0.75, 2.5, 1.65), Box(3.1, 1.6, 3.1, 0.8), Box(6.55, 0.75, 2.5, 1.65)
TECHNIQUE = Box(3.1, 0.4, 3.1, 0.85)
STRATEGIES = {"zs": "base", "ft": "newest expert", "ema": "running merge", "all": "merge of all experts"}


def loop_diagram() -> Figure:
    """The diagram. Values of init and deploy have the colours and markers of the plot of scores."""
    figure = Figure(figsize=(WIDTH, HEIGHT), label="the loop of TIME")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.set_axis_off()
    for name, does in STAGES.items():
        _stage(axes, BOXES[name], name, does)
    _loop(axes)
    _experts(axes)
    _axis(axes, INIT, "init", STRATEGIES, colours=PALETTE, markers="oooo")
    served = {name: text for name, text in STRATEGIES.items() if name != "zs"}
    _axis(axes, DEPLOY, "deploy", served, colours=[FAINT] * 3, markers=MARKERS)
    _technique(axes)
    axes.text(
        0.15,
        0.2,
        "window, on both axes, merges the last few experts. Model size, compute budget and seed are axes, too.",
        fontsize=9,
        color=FAINT,
        va="center",
    )
    return figure


def _stage(axes: Any, box: Box, name: str, does: str) -> None:
    chooses = name in ("init", "deploy")
    ink = "white" if chooses else INK
    _frame(axes, box, INK if chooses else "white")
    x, y = box.middle
    axes.text(x, y + 0.25, name, ha="center", va="center", fontsize=12, fontweight="bold", color=ink)
    axes.text(x, y - 0.17, does, ha="center", va="center", fontsize=9, color=ink)


def _loop(axes: Any) -> None:
    """From stage to stage, and from the last one back to the first."""
    boxes = list(BOXES.values())
    for one, other in pairwise(boxes):
        _arrow(axes, (one.right, one.middle[1]), (other.left, other.middle[1]))
    first, last, above = boxes[0].middle[0], boxes[-1].middle[0], boxes[0].top + 0.35
    axes.plot([last, last, first], [boxes[-1].top, above, above], color=INK, linewidth=1.3, solid_capstyle="butt")
    _arrow(axes, (first, above), (first, boxes[0].top))
    axes.text((first + last) / 2, above + 0.12, "next task", ha="center", va="bottom", fontsize=10, color=INK)


def _experts(axes: Any) -> None:
    """The shelf of what has been stored, which init and deploy choose from."""
    _frame(axes, EXPERTS, "#f2f2f2")
    axes.text(EXPERTS.middle[0], EXPERTS.top - 0.2, "experts so far", ha="center", va="center", fontsize=9, color=INK)
    for number, label in enumerate(("θ₀ base", "θ₁", "θ₂", "…", "θₜ")):
        left = EXPERTS.left + (0.13 if not number else 0.45 + 0.52 * number)
        box = Box(left, EXPERTS.bottom + 0.1, 0.75 if not number else 0.42, 0.32)
        if label != "…":
            _frame(axes, box, "white", pad=0.02)
        axes.text(*box.middle, label, ha="center", va="center", fontsize=9.5, color=INK)
    _arrow(axes, (BOXES["store"].middle[0], BOXES["store"].bottom), (BOXES["store"].middle[0], EXPERTS.top))
    _arrow(axes, (EXPERTS.left, EXPERTS.middle[1]), (INIT.right, EXPERTS.middle[1]))
    _arrow(axes, (EXPERTS.right, EXPERTS.middle[1]), (DEPLOY.left, EXPERTS.middle[1]))


def _axis(
    axes: Any, box: Box, name: str, values: dict[str, str], *, colours: Sequence[str], markers: Sequence[str]
) -> None:
    """An axis of the grid under its stage: its values and what they mean."""
    _frame(axes, box, "white")
    axes.text(box.left + 0.15, box.top - 0.2, f"axis {name}", va="center", fontsize=10, fontweight="bold", color=INK)
    for row, ((label, text), colour, marker) in enumerate(zip(values.items(), colours, markers, strict=False)):
        y = box.top - 0.52 - 0.29 * row
        axes.plot(box.left + 0.24, y, marker=marker, color=colour, markersize=8)
        axes.text(box.left + 0.42, y, label, va="center", fontsize=10, fontweight="bold", color=INK)
        axes.text(box.left + 0.9, y, text, va="center", fontsize=9.5, color=INK)
    stage = BOXES[name]
    x = (max(box.left, stage.left) + min(box.right, stage.right)) / 2
    _arrow(axes, (x, box.top), (x, stage.bottom))


def _technique(axes: Any) -> None:
    _frame(axes, TECHNIQUE, "white")
    x, y = TECHNIQUE.middle
    axes.text(x, y + 0.22, "axis technique", ha="center", va="center", fontsize=10, fontweight="bold", color=INK)
    axes.text(
        x,
        y - 0.14,
        "how ema and all merge:\naverage, slerp, ties, magmax, ...",
        ha="center",
        va="center",
        fontsize=9,
        color=INK,
    )
    for start, end in ((TECHNIQUE.left, INIT.right), (TECHNIQUE.right, DEPLOY.left)):
        _arrow(axes, (start, y + 0.14), (end, y + 0.14), dashed=True)


def _frame(axes: Any, box: Box, colour: str, pad: float = 0.0) -> None:
    shape = f"round,pad={pad},rounding_size=0.08"
    patch = FancyBboxPatch(box[:2], *box[2:], boxstyle=shape, facecolor=colour, edgecolor=INK, linewidth=1.2)
    axes.add_patch(patch)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], *, dashed: bool = False) -> None:
    style = (0, (3, 2)) if dashed else "solid"
    look: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 13,
        "color": INK,
        "linewidth": 1.3,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.add_patch(FancyArrowPatch(start, end, linestyle=style, **look))
