"""The verdict: the winner in a sentence, and what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

from time_ray.analysis.costs import Costs
from time_ray.analysis.ranking import Ranked, Ranking
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.core.quantities import duration
from time_ray.core.statistics import deviation
from time_ray.figures.places import named, varying
from time_ray.report.best import left_out, spread, value_title, verdict


@dataclass(frozen=True)
class Headline:
    """What is said first: a sentence, facts by name, and how sure all this is."""

    sentence: str
    facts: Sequence[tuple[str, str]]
    sure: Sequence[str]


def headline(ranked: Ranking, spent: Costs, search: Sequence[str] = ()) -> Headline:
    """The verdict of a ranking, which may have no rows, and what is said of the search that it rests on."""
    cost = _cost(spent)
    if not ranked.rows:
        return Headline("No cell is finished, so nothing is ranked yet.", [("computing", cost)], [])
    leader, axes = ranked.leader, ranked.leader.contender.axes
    where = f"init {axes['init']}, deploy {axes['deploy']}, technique {axes['technique']}"
    others = varying([row.contender.axes for row in ranked.rows])
    where += "".join(f", {name} {axes[name]}" for name in ("model", "budget") if name in others)
    where += f", at length {leader.length:g}" if leader.length != 1 else ""
    facts = [
        (f"{METRICS[name].title}", spread(leader.mean_of(name), leader.sd_of(name)))
        for name in OF_THE_PAPER
        if leader.mean_of(name) is not None
    ]
    return Headline(
        f"Best-in-TIME: {where}.{_margin(ranked, others)}",
        [*facts, ("seeds", str(len(ranked.seeds))), ("may also be the best", _tied(ranked)), ("computing", cost)],
        [*verdict(ranked), *search, *left_out(ranked)],
    )


def _margin(ranked: Ranking, axes: Sequence[str]) -> str:
    """What it scores on the half that is reported, and by how much that is more than the next one."""
    leader, title = ranked.leader, value_title(ranked)
    rest = [row for row in ranked.rows[1:] if row.value is not None]
    value = spread(leader.value, deviation(leader.by_seed))
    if not rest or leader.value is None:
        return f" {title} {value}."
    following = min(rest, key=lambda row: ranked.metric.loss(row.value))
    margin = ranked.metric.loss(following.value) - ranked.metric.loss(leader.value)
    how = f"{margin:.2f} better than" if margin >= 0 else f"{-margin:.2f} worse than"
    return f" {title} {value}, {how} the next, {_name(following, axes)}."


def _name(row: Ranked, axes: Sequence[str]) -> str:
    length = f" at length {row.length:g}" if row.length != 1 else ""
    return f"{named(row.contender.axes, axes)}{length}"


def _tied(ranked: Ranking) -> str:
    if len(ranked.seeds) == 1:
        return "unknown: one seed"
    rivals = [row for row in ranked.tied if row is not ranked.leader]
    return f"{len(rivals)} of {len(ranked.rows)} cells"


def _cost(spent: Costs) -> str:
    total, unshared = sum(spent.total.values()), sum(spent.unshared.values())
    return f"{duration(total)}, each model once; {duration(unshared)} if nothing was shared"
