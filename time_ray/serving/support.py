"""What speaks for the best: the metric that chose it, how sure that is, and what may be as good."""

from time_ray.analysis.ranking import Ranking


def support(ranked: Ranking) -> dict[str, str]:
    """By name, in words: for tags of a registry, and for model cards."""
    leader, metric = ranked.leader, ranked.metric
    interval = "" if leader.lower is None else f"[{leader.lower:.2f}, {leader.upper:.2f}]"
    others = [row.contender.name for row in ranked.tied if row is not leader]
    return {
        "metric": metric.name,
        "value": "" if leader.value is None else f"{leader.value:.2f}",
        "length": f"{leader.length:g}",
        "seeds": str(len(ranked.seeds)),
        "interval": interval,
        "tied": str(len(others)),
        "tied_set": "; ".join(others),
    }
