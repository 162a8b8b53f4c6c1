"""Figures inside the page: SVG without what only a file needs, small, and with names of its own."""

import re
from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from time_ray.figures.style import drawn

_ROOT = re.compile(r'<svg [^>]*width="([\d.]+)pt" height="([\d.]+)pt"[^>]*>\s*<title>(.*?)</title>', re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")  # in values of attributes both signs are escaped
_CELL = re.compile(r'<g id="cell ([^"]*)">')
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'(url\(#|xlink:href="#)([^)"]*)')
_FONT = re.compile(r"font-family: [^;\"]*;? ?")
_LONG = re.compile(r"(\d\.\d\d)\d+")


class Picture(NamedTuple):
    """An image as HTML, and its title, for those who do not see it."""

    svg: Markup
    title: str


def inline(name: str, build: Callable[[], Figure | None]) -> Picture | None:
    """The figure as an element of a page; None where there is nothing to draw.

    Args:
        name: What its own names begin with, so that no two images of a page have the same.
        build: Makes the figure, whose label becomes the title.

    """
    image = drawn(build)
    if image is None:
        return None
    text = " ".join(_METADATA.sub("", image.decode("utf-8")).split())
    root = _ROOT.search(text)
    if root is None:
        raise ValueError(text[:200])
    across, up = (float(points) for points in root.groups()[:2])
    used = {name for _, name in _USED.findall(text)}
    body = _TAG.sub(lambda tag: _tag(tag[0], name, used), text[root.end() :])
    look = f'viewBox="0 0 {across:.1f} {up:.1f}" width="{across * 4 / 3:.0f}" height="{up * 4 / 3:.0f}"'
    title = Markup(root[3]).unescape()  # noqa: S704 matplotlib has escaped it
    start = f'<svg role="img" aria-label="{escape(title)}" {look}>'
    return Picture(Markup(start + body), title)  # noqa: S704 see above


def _tag(tag: str, name: str, used: set[str]) -> str:
    """Shorter, and with names of this image; a cell's name becomes what is shown when one points at it."""
    if cell := _CELL.fullmatch(tag):
        return f"<g><title>{cell[1]}</title>"
    tag = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", tag)
    tag = _USED.sub(lambda found: f"{found[1]}{name}-{found[2]}", tag).replace("xlink:href", "href")
    return _LONG.sub(r"\1", _FONT.sub("", tag))
