"""The rules by which results decide the findings of TIME (https://arxiv.org/abs/2412.06712).

A claim is held if its interval lies on the claimed side, not held if it lies on the other, else undecided. Intervals
are of differences paired by seed, with 95 % for the claim as a whole: where several must hold at once, each has more.
Cells are at their best lengths where lengths were measured: chosen on one half of the test images, of which the other
is measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.axis_importance import axis_importance
from time_ray.analysis.best_length import measured
from time_ray.analysis.contenders import contenders
from time_ray.analysis.evidence import RECENCY, Evidence, Grid, LackingError, Variant
from time_ray.analysis.ranking import Ranked, ranking
from time_ray.core.criterion import Criterion
from time_ray.core.paired import PairedInterval, paired_interval
from time_ray.core.statistics import mean
from time_ray.core.tied_best import NO_PRIOR, Prior, fit_prior
from time_ray.results import CellResult

Values = NDArray[np.float64]
Decision = Literal["held", "not held", "undecided"]

LEVEL = 0.95
GM = Criterion()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What results say of a claim.

    Attributes:
        verdict: whether it holds.
        effect: the number that decides; None where results lack.
        low: where its interval begins; None with one seed.
        high: where it ends; None also where it has no end.
        level: of this interval.
        of: what the number is.
        seeds: it is over these.
        detail: what else there is to know.
        decide: of what is undecided, the command or the line of the experiment that would decide it.

    """

    verdict: Decision
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    level: float = LEVEL
    of: str = ""
    seeds: tuple[int, ...] = ()
    detail: str = ""
    decide: str | None = None
    claim: str = ""  # R1 to R7
    says: str = ""


def offline_below_replay(evidence: Evidence, _: float) -> Verdict:
    """R1. Fine-tuning is as it is served, which makes the claim no easier."""
    _needs_lengths(evidence)
    offline = evidence.variant("offline")
    places = [offline.place("zs", "all", technique) for technique in evidence.techniques]
    tuned = evidence.variant("replay").place("ft", "ft", evidence.reference)
    found = measured(places, evidence.halves, GM, as_served=[tuned])
    differences, level = found.values[:-1] - found.values[-1], _each(len(places))
    prior = _prior(found.values)
    intervals = [_interval(row, level, prior) for row in differences]
    worst = _shown(differences.mean(axis=1).tolist(), intervals, 0)
    named = zip(evidence.techniques, found.lengths[:-1], differences.mean(axis=1), strict=True)
    low, high = _ends(intervals[worst])
    return Verdict(
        verdict=_decided(
            held=all(one is not None and one.high < 0 for one in intervals),
            not_held=any(one is not None and one.low > 0 for one in intervals),
        ),
        low=low,
        high=high,
        effect=float(differences[worst].mean()),
        level=level,
        of=f"zs/all {evidence.techniques[worst]} without replay, less ft/ft with replay; of all techniques the highest",
        detail="; ".join(f"{name} at length {length:g}: {value:+.2f}" for name, length, value in named),
    )


def replay_lifts_offline(evidence: Evidence, _: float) -> Verdict:
    """R2."""
    sweeps: tuple[Variant, ...] = ("replay", "offline")
    places = [evidence.variant(name).place("zs", "all", evidence.reference) for name in sweeps]
    values = measured(places, evidence.halves, GM).values
    found = _interval(values[0] - values[1], LEVEL, _prior(values))
    low, high = _ends(found)
    return Verdict(
        verdict=_decided(held=found is not None and found.low > 0, not_held=found is not None and found.high <= 0),
        low=low,
        high=high,
        effect=mean((values[0] - values[1]).tolist()),
        of=f"zs/all {evidence.reference} with replay, less without",
        detail="the paper: about +3.6",
    )


def recency_lifts_further(evidence: Evidence, epsilon: float) -> Verdict:
    """R3: two claims at once."""
    sweep = evidence.variant("recency")
    places = [sweep.place("zs", "all", name) for name in (RECENCY.name, RECENCY.label)]
    served = evidence.variant("replay").place("ft", "ft", evidence.reference)
    values = measured(places, evidence.halves, GM, as_served=[served]).values
    plain, recent, tuned = values
    prior, level = _prior(values), _each(2)
    lift, gap = _interval(recent - plain, level, prior), _interval(recent - tuned, level, prior)
    reached = "" if gap is None else f" ({gap.low:+.2f} … {gap.high:+.2f})"
    low, high = _ends(lift)
    return Verdict(
        verdict=_decided(
            held=lift is not None and gap is not None and lift.low > 0 and gap.low > -epsilon,
            not_held=lift is not None and gap is not None and (lift.high <= 0 or gap.high < -epsilon),
        ),
        low=low,
        high=high,
        effect=mean((recent - plain).tolist()),
        level=level,
        of="zs/all average with replay and linear recency weights, less without such weights",
        detail=f"less ft/ft with replay: {mean((recent - tuned).tolist()):+.2f}{reached}; the paper: +0.7, and -0.2",
    )


def strategies_over_technique(evidence: Evidence, _: float) -> Verdict:
    """R4, at best lengths where these were measured."""
    axes = evidence.first.finished[0].cell.axes
    for axis in ("technique", "init", "deploy"):
        if all(result.cell.axes[axis] == axes[axis] for result in evidence.first.finished):
            raise LackingError(f"in {evidence.opened.path}, {axis}: [...] of several values")
    found = axis_importance(evidence.first.finished, evidence.halves, GM, to_finish="")
    ratio = (found.at_best or found.at_one).headline
    low, high = ratio.interval or (None, None)
    served = found.at_one.headline.value
    return Verdict(
        verdict=_decided(held=low is not None and low > 1, not_held=high is not None and high < 1),
        effect=ratio.value,
        low=low,
        high=None if high is None or np.isinf(high) else high,
        of=f"share of init and deploy over that of technique, {'at best lengths' if found.at_best else 'as served'}",
        detail="" if served is None or found.at_best is None else f"as served: {served:.2g}",
    )


def best_in_time(evidence: Evidence, _: float) -> Verdict:
    """R5."""
    return _ema_is_best(evidence, evidence.first)


def _ema_is_best(evidence: Evidence, grid: Grid) -> Verdict:
    rows = ranking(grid.finished, evidence.halves, GM).rows
    ema = [row for row in rows if _names(row) == ("ema", "ema")]
    tuned = [row for row in rows if row.contender.axes["init"] == row.contender.axes["deploy"] == "ft"]
    offline = [row for row in rows if row.contender.axes["init"] == "zs"]
    for axes, there in (
        ("init and deploy: [..., ema]", ema),
        ("init and deploy: [..., ft]", tuned),
        ("init: [..., zs]", offline),
    ):
        if not there:
            raise LackingError(f"in {grid.opened.path}, {axes}")
    rest = [*tuned, *offline]
    best, rival = (max(some, key=lambda row: row.selected_on or 0.0) for some in (ema, rest))
    differences = np.array(best.by_seed) - np.array(rival.by_seed)
    tied = [row.contender.name for row in rest if row.tied]
    judged = rows[0].tied is not None
    low, high = _ends(_interval(differences, LEVEL, _prior(np.array([row.by_seed for row in rows]))))
    return Verdict(
        verdict=_decided(
            held=judged and any(row.tied for row in ema) and not tied,
            not_held=judged and not any(row.tied for row in ema),
        ),
        low=low,
        high=high,
        effect=float(differences.mean()),
        of=f"{_short(best)}, less {_short(rival)}, which are the best of their kinds",
        detail=f"{sum(bool(row.tied) for row in rows)} of {len(rows)} cells may be the best"
        + (f", of ft/ft and zs/*: {len(tied)}" if judged else "")
        + f"; leader: {_short(rows[0])}",
    )


def holds_everywhere(evidence: Evidence, _: float) -> Verdict:
    """R6: R5 under every condition, and a gap that grows with the model."""
    parts = {name: _attempt(evidence, where) for name, where in _conditions(evidence)}
    growth, of, where = _growth(evidence)
    found = _interval(growth, LEVEL, NO_PRIOR) if growth is not None else None
    verdicts = [part.verdict for part in parts.values()]
    lacking = [part.decide for part in parts.values() if part.decide] + ([where] if where else [])
    low, high = _ends(found)
    return Verdict(
        verdict=_decided(
            held=all(one == "held" for one in verdicts) and found is not None and found.low > 0,
            not_held="not held" in verdicts or (found is not None and found.high <= 0),
        ),
        low=low,
        high=high,
        effect=None if growth is None else float(growth.mean()),
        of=of,
        detail="; ".join(f"R5 with {name}: {part.verdict}" for name, part in parts.items()),
        decide=lacking[0] if lacking else None,
    )


def _conditions(evidence: Evidence) -> Iterator[tuple[str, Grid | Variant]]:
    """Other models, budgets and streams: those of the file, else a variant."""
    first = evidence.first
    models = [
        grid for grid in evidence.as_written.values() if grid.model != first.model and grid.budget == first.budget
    ]
    budgets = [
        grid for grid in evidence.as_written.values() if grid.model == first.model and grid.budget != first.budget
    ]
    yield f"{first.model}, {first.budget}", first
    yield from ((grid.model, grid) for grid in models)
    yield from ((grid.budget, grid) for grid in budgets)
    if not models:
        yield "a larger model", "larger model"
    if not budgets:
        yield "more compute", "more compute"
    yield "a longer stream", "longer stream"


def _attempt(evidence: Evidence, where: Grid | Variant) -> Verdict:
    try:
        return _ema_is_best(evidence, where if isinstance(where, Grid) else evidence.variant(where))
    except LackingError as error:
        return Verdict(verdict="undecided", decide=str(error))


def _growth(evidence: Evidence) -> tuple[Values | None, str, str]:
    """By seed, how much more ema/ema leads ft/ft by with the largest model than with the smallest; or what it lacks."""
    budget = evidence.first.budget
    grids = [grid for (_, spent), grid in evidence.as_written.items() if spent == budget]
    try:
        largest = grids[-1] if len(grids) > 1 else evidence.variant("larger model")
        pairs = [
            grid.place(name, name, evidence.reference) for grid in (largest, evidence.first) for name in ("ema", "ft")
        ]
    except LackingError as error:
        return None, "", str(error)
    ema, ft, small_ema, small_ft = measured(pairs, evidence.halves, GM).values
    of = f"ema/ema less ft/ft with {largest.model}, less the same with {evidence.first.model} ({evidence.reference})"
    return (ema - ft) - (small_ema - small_ft), of, ""


def techniques_are_alike(evidence: Evidence, epsilon: float) -> Verdict:
    """R7, over all pairs of techniques wherever these make different models."""
    _needs_lengths(evidence)
    found = contenders(evidence.first.finished)
    values = measured([_by_seed(one.results) for one in found], evidence.halves, GM).values
    alike: dict[tuple[str, str], list[int]] = {}
    for number, one in enumerate(found):
        alike.setdefault((one.axes["init"], one.axes["deploy"]), []).append(number)
    pairs = [
        sorted(pair, key=lambda number: -float(values[number].mean()))
        for numbers in alike.values()
        for pair in combinations(numbers, 2)
    ]
    if not pairs:
        raise LackingError(f"in {evidence.opened.path}, technique: [..., ties, magmax]")
    differences = [values[higher] - values[lower] for higher, lower in pairs]
    level, prior = _each(len(pairs)), _prior(values)
    intervals = [_interval(row, level, prior) for row in differences]
    known = [one for one in intervals if one is not None]
    means = [float(row.mean()) for row in differences]
    widest = _shown(means, intervals, epsilon)
    higher, lower = (found[number].axes for number in pairs[widest])
    low, high = _ends(intervals[widest])
    return Verdict(
        verdict=_decided(
            held=bool(known) and all(one.high <= epsilon for one in known),
            not_held=any(one.low > epsilon for one in known),
        ),
        low=low,
        high=high,
        effect=means[widest],
        level=level,
        of=f"{higher['init']}/{higher['deploy']} {higher['technique']}, less {lower['technique']}; the clearest pair",
        detail=f"{sum(one > epsilon for one in means)} of {len(pairs)} pairs differ by more than {epsilon:g} GM",
    )


def _needs_lengths(evidence: Evidence) -> None:
    if not evidence.experiment.evaluation.lengths:
        raise LackingError(f"in {evidence.opened.path}, evaluation: {{lengths: [0.25, 0.5, 0.75, 1.25]}}")


def _decided(*, held: bool, not_held: bool) -> Decision:
    return "held" if held else "not held" if not_held else "undecided"


def _each(count: int) -> float:
    """The level of each of so many intervals that all hold with LEVEL (Bonferroni)."""
    return 1 - (1 - LEVEL) / count


def _interval(differences: Values, level: float, prior: Prior) -> PairedInterval | None:
    return paired_interval(differences, level=level, prior=prior) if len(differences) > 1 else None


def _shown(means: Sequence[float], intervals: Sequence[PairedInterval | None], bound: float) -> int:
    """Of several that must all be below a bound: the one that is clearest above it, else the highest."""
    lows = [-np.inf if one is None else one.low for one in intervals]
    return int(np.argmax(lows if max(lows) > bound else means))


def _ends(interval: PairedInterval | None) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _prior(values: Values) -> Prior:
    """What all these [cells, seeds] say of the variance of a difference of two."""
    return fit_prior(values) if values.shape[1] > 1 else NO_PRIOR


def _by_seed(results: Mapping[int, CellResult]) -> list[CellResult]:
    return [results[seed] for seed in sorted(results)]


def _names(row: Ranked) -> tuple[str, ...]:
    """Of init and deploy, without their parameters."""
    return tuple(row.contender.axes[name].partition("(")[0] for name in ("init", "deploy"))


def _short(row: Ranked) -> str:
    axes = row.contender.axes
    length = "" if row.length == 1 else f" at length {row.length:g}"
    return f"{axes['init']}/{axes['deploy']} {axes['technique']}{length}"
