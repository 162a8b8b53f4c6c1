"""Figures as SVG files: text as outlines, a white page for both themes, equal figures as equal bytes."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

INK, FAINT = "#222222", "#6b6b6b"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
"""The palette of Okabe and Ito, which people who see fewer colours tell apart."""

_STYLE = {"svg.fonttype": "path", "svg.hashsalt": "time_ray", "font.family": "DejaVu Sans"}


def write_svg(figure: Figure, path: Path) -> None:
    """The figure is in the file."""
    with mpl.rc_context(_STYLE):
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
