"""What a search for parameters gained: the best against the defaults, on the half of the images that did not choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from time_ray import merging
from time_ray.analysis.final_score import final_score
from time_ray.analysis.resampling import Right, difference_interval
from time_ray.core.grid import Cell, last
from time_ray.core.parameter_range import Range
from time_ray.core.statistics import mean
from time_ray.core.tuning import Params, Tuning
from time_ray.found_params import read_candidates
from time_ray.per_image import PerImage
from time_ray.store.store import Store
from time_ray.study import Study, candidate


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a search found.

    Attributes:
        name: of the search.
        searched: the technique as people call it.
        over: with the defaults, as the grid has it.
        axes: where the best parameters stand in the grid: all axes but the seed.
        by: the metric.
        ranges: what was searched.
        defaults: of the same parameters.
        params: the best parameters.
        cells: keys of the cells with these, a seed each.
        candidates: how many were tried.
        failed: how many of them could not be merged or scored.
        mean: of the metric, what the best has more than the defaults: mean over seeds, on the reported half.
        low: where its 95 % interval over test images begins, both cells on the same images.
        high: where it ends.
        at_bounds: parameters that lie at a bound of their range.
        halves: whether chosen and reported on different images.

    """

    name: str
    searched: str
    over: str
    axes: Mapping[str, str]
    by: str
    ranges: Mapping[str, Range]
    defaults: Mapping[str, object]
    params: Params
    cells: tuple[str, ...]
    candidates: int
    failed: int
    mean: float
    low: float
    high: float
    at_bounds: Mapping[str, Literal["lower", "upper"]]
    halves: bool


def gains(study: Study, store: Store) -> list[Gain]:
    """Those of all searches that are over, as far as the best and the defaults are scored, with their outcomes."""
    images = PerImage(store)
    every = (_gain(one, study.found[one.key], store, images) for one in study.tunings if one.key in study.found)
    return [gain for gain in every if gain is not None]


def _gain(tuning: Tuning, params: Params, store: Store, images: PerImage) -> Gain | None:
    best = candidate(tuning, params)
    pairs = list(zip(best, tuning.cells, strict=True))
    scores = [[final_score(cell, images, tuning.by, "report") for cell in pair] for pair in pairs]
    differences = [one - other for one, other in scores if one is not None and other is not None]
    if len(differences) < len(pairs):
        return None
    right = [_stacked(pair, images) for pair in pairs]
    low, high = difference_interval([cell.setting for cell in best], right, tuning.by)
    tried = read_candidates(store, tuning)
    at_bounds = {name: tuning.ranges[name].bound_at(value) for name, value in params.items()}
    return Gain(
        name=tuning.name,
        searched=tuning.searched,
        over=tuning.cells[0].axes["technique"],
        axes={axis: value for axis, value in best[0].axes.items() if axis != "seed"},
        by=tuning.by,
        ranges=tuning.ranges,
        defaults={name: merging.TECHNIQUES[tuning.technique].parameters[name].default for name in params},
        params=params,
        cells=tuple(cell.key for cell in best),
        candidates=len(tried),
        failed=sum(one.value is None for one in tried),
        mean=mean(differences),
        low=low,
        high=high,
        at_bounds={name: bound for name, bound in at_bounds.items() if bound is not None},
        halves=all(_has_halves(cell, images) for cell in best),
    )


def _stacked(cells: Sequence[Cell], images: PerImage) -> Right:
    """Of every question the outcomes [cells, images] on the reported half; on all images where they have no halves."""
    setting = cells[0].setting
    found = [images.outcomes(setting.scores_key(last(cell))) or {} for cell in cells]
    asked = images.test_images(setting)
    every = {question: np.full(len(bits), True) for question, bits in found[0].items()}
    kept = asked.report if asked and asked.has_halves else every
    return {question: np.array([one[question][keep] for one in found], np.float32) for question, keep in kept.items()}


def _has_halves(cell: Cell, images: PerImage) -> bool:
    asked = images.test_images(cell.setting)
    return asked is not None and asked.has_halves
