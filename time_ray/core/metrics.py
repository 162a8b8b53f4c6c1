"""The scores of TIME: knowledge accumulation, zero-shot retention and their geometric mean, in percent."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Scores(NamedTuple):
    """KA: mean accuracy over adaptation datasets, seen or not. ZS: over held-out ones. GM: sqrt(KA x ZS).

    A side without datasets has no score (None), and then there is no geometric mean.
    """

    ka: float | None
    zs: float | None
    gm: float | None


def scores(accuracy: Mapping[str, float], adaptation: Iterable[str], evaluation: Iterable[str]) -> Scores:
    """KA, ZS and GM of one model from its accuracy (percent) on every dataset."""
    ka = _mean([accuracy[name] for name in adaptation])
    zs = _mean([accuracy[name] for name in evaluation])
    return Scores(ka, zs, None if ka is None or zs is None else math.sqrt(ka * zs))


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
