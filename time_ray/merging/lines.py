"""LiNeS (arXiv:2410.17146): early blocks move little from the base, late blocks move most."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

CURVES = ("linear", "quadratic", "sqrt")
TAILS = ("last", "alpha")
POWERS = {"linear": 1.0, "quadratic": 2.0, "sqrt": 0.5}
BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks|layers|layer)\.(\d+)\.")
# What comes after the last block of a CLIP tower: its last normalisation, its projection, the temperature.
TAIL = re.compile(r"^(?:visual\.)?(?:ln_post|ln_final|proj|text_projection|logit_scale|logit_bias)(?:\.|$)")


def tower(name: str) -> str:
    """The tower that a tensor belongs to: `image` for names that begin with `visual.`, else `text`."""
    return "image" if name.startswith("visual.") else "text"


def block(name: str) -> int | None:
    """The number of the block that a tensor belongs to, or None outside the blocks."""
    found = BLOCK.search(name)
    return int(found[1]) if found else None


def layer_factors(names: Iterable[str], settings: Mapping[str, Any]) -> dict[str, float]:
    """The factor of each tensor's merged task vector: α in a tower's first block to α + β in its last.

    Depth counts per tower. Before the blocks the factor is α; behind them α + β (`tail: last`) or α (`tail: alpha`).
    An α of None is left out: it is added once the norms are known (see `lines_alpha`).
    """
    names = list(names)
    alpha, beta = settings["alpha"] or 0.0, settings["beta"]
    depths: dict[str, int] = {}
    for name in names:
        depths[tower(name)] = max(depths.get(tower(name), 0), block(name) or 0)
    power = POWERS[settings.get("curve", "linear")]
    tail = 1.0 if settings.get("tail", "last") == "last" else 0.0

    def share(name: str) -> float:
        number = block(name)
        if number is not None and depths[tower(name)]:
            return float((number / depths[tower(name)]) ** power)
        return tail if TAIL.match(name) else 0.0

    return {name: alpha + beta * share(name) for name in names}


def has_own_alpha(parameters: Mapping[str, Any]) -> bool:
    """Whether LiNeS is on and its α is left to the norms."""
    settings: Mapping[str, Any] | None = parameters.get("lines")
    return bool(settings and settings["alpha"] is None)
