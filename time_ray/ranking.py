"""Best-in-TIME: cells ranked over seeds, and the front between learning and keeping."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from time_ray.core.metrics import METRICS, OF_THE_PAPER, Metric, metric_named
from time_ray.core.statistics import deviation, mean, pareto_front
from time_ray.results import CellResult

AXES = ("init", "deploy", "technique", "model", "budget")  # all but the seed


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A cell without its seed, and its metrics over seeds, by name; None where a metric is not defined."""

    init: str
    deploy: str
    technique: str
    model: str
    budget: str
    seeds: int
    means: Mapping[str, float | None]
    sds: Mapping[str, float | None]  # sample standard deviations (n - 1); None for one seed
    pareto: bool  # no other cell has both a higher KA and a higher ZS
    results: tuple[CellResult, ...]

    def as_row(self) -> dict[str, object]:
        """The row of `best -f json`."""
        scores = {**self.means, **{f"{name}_sd": sd for name, sd in self.sds.items()}}
        return {name: scores[name] if name in scores else getattr(self, name) for name in columns()}


@dataclass(frozen=True)
class Ranking:
    """Finished cells over their seeds, best first by a metric of the table."""

    by: str
    rows: tuple[Ranked, ...]
    num_unfinished: int  # cells that are not ranked, each seed counted

    @property
    def winner(self) -> CellResult:
        """The best cell's best seed: the one whose weights are registered and exported."""
        return best_seed(self.rows[0], self.by)


def columns() -> tuple[str, ...]:
    """The columns of `best -f json` and `-f csv`. Later metrics stand behind earlier columns, so that none moves."""
    later = [name for name in METRICS if name not in OF_THE_PAPER]
    first = (*OF_THE_PAPER, *(f"{name}_sd" for name in OF_THE_PAPER))
    return (*AXES, "seeds", *first, "pareto", *(column for name in later for column in (name, f"{name}_sd")))


def ranking(results: Sequence[CellResult], by: str = "gm") -> Ranking:
    """The ranking of all that is finished, which may be nothing. Raises UserError if there is no such metric."""
    return Ranking(by, tuple(rank(results, by)), sum(not result.done for result in results))


def rank(results: Sequence[CellResult], by: str = "gm") -> list[Ranked]:
    """Finished cells, best first by a metric. Without held-out data there is no GM, and KA ranks.

    UserError if there is no such metric.
    """
    metric_named(by)
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for result in results:
        if result.done:
            groups.setdefault(tuple(result.cell.axes[name] for name in AXES), []).append(result)
    means = [{name: _mean(group, name) for name in METRICS} for group in groups.values()]
    front = pareto_front([(scores["ka"] or 0.0, scores["zs"] or 0.0) for scores in means])
    ranked = [
        Ranked(
            **dict(zip(AXES, axes, strict=True)),
            seeds=len(group),
            means=scores,
            sds={name: deviation(_values(group, name)) for name in METRICS},
            pareto=number in front,
            results=tuple(group),
        )
        for number, ((axes, group), scores) in enumerate(zip(groups.items(), means, strict=True))
    ]
    metric = _ranking(by, means)
    return sorted(ranked, key=lambda row: (metric.loss(row.means[metric.name]), row.init, row.deploy, row.technique))


def best_seed(row: Ranked, by: str) -> CellResult:
    """The seed of a ranked cell that scored best: the one whose weights are registered."""
    metric = _ranking(by, [result.final for result in row.results])
    return min(row.results, key=lambda result: metric.loss(result.final[metric.name]))


def _ranking(by: str, scores: Iterable[Mapping[str, float | None]]) -> Metric:
    """The metric that was asked for, or KA where that is defined for none."""
    return METRICS[by if any(score[by] is not None for score in scores) else "ka"]


def _values(group: Sequence[CellResult], name: str) -> list[float]:
    return [value for result in group if (value := result.final[name]) is not None]


def _mean(group: Sequence[CellResult], name: str) -> float | None:
    values = _values(group, name)
    return mean(values) if values else None
