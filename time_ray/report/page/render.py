"""The page as HTML: one file, with its styles, its script and its figures inside; nothing is loaded from anywhere."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from time_ray.report.page.content import Content


def render(content: Content) -> str:
    """The page. Every word that people chose is escaped, and no script but its own can run."""
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template("page.html")
    return template.render(
        page=content,
        style=Markup(_text("page.css")),  # noqa: S704 a file of the package
        script=Markup(script),  # noqa: S704 likewise
        digest=digest,
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("time_ray.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str) -> str:
    return files("time_ray.report.page").joinpath(name).read_text(encoding="utf-8")
