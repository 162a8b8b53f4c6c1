"""BatchNorm's running statistics (arXiv:1502.03167) in a merge: averaged, whatever the technique.

They are measurements of data, and no direction in the space of weights: dropped, rescaled or extrapolated, a variance
would be of no data at all, or negative. An average of variances is finite and at least 0, as they are.
"""

from collections.abc import Mapping
from typing import Any

from time_ray.merging.average import Average, LayeredAverage, PairAverage, ReversedAverage
from time_ray.merging.declaration import Technique
from time_ray.merging.rule import Rule

AVERAGES = (Average, ReversedAverage, LayeredAverage)


def statistics_rule(technique: Technique, parameters: Mapping[str, Any], rule: Rule) -> Rule:
    """The rule of running statistics beside a technique's own: its shares where it averages or takes a `weight`."""
    if isinstance(rule, AVERAGES):
        return rule
    weight = parameters["weight"] if technique.takes_weight else None
    return Average() if weight is None else PairAverage(weight)
