"""Best-in-TIME: cells ranked over seeds, and the front between learning and keeping."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from time_ray.core.statistics import deviation, mean, pareto_front
from time_ray.results import CellResult

By = Literal["gm", "ka", "zs"]


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A cell without its seed: means and sample standard deviations (n - 1) over seeds, in percent."""

    init: str
    deploy: str
    technique: str
    model: str
    budget: str
    seeds: int
    ka: float | None
    zs: float | None
    gm: float | None
    ka_sd: float | None
    zs_sd: float | None
    gm_sd: float | None
    pareto: bool  # no other cell has both a higher KA and a higher ZS
    results: tuple[CellResult, ...]

    def score(self, by: By) -> float | None:
        """The mean that the ranking goes by."""
        found: float | None = getattr(self, by)
        return found

    def as_row(self) -> dict[str, object]:
        """The row of `best -f json`."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = (
    *("init", "deploy", "technique", "model", "budget", "seeds"),
    *("ka", "zs", "gm", "ka_sd", "zs_sd", "gm_sd", "pareto"),
)


def rank(results: Sequence[CellResult], by: By = "gm") -> list[Ranked]:
    """Finished cells, best first. Without held-out data there is no GM, and KA decides."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for result in results:
        if result.done:
            axes = result.cell.axes
            groups.setdefault(tuple(v for k, v in axes.items() if k != "seed"), []).append(result)
    members = list(groups.values())
    means = [(_mean(group, "ka"), _mean(group, "zs")) for group in members]
    front = pareto_front([(ka or 0.0, zs or 0.0) for ka, zs in means])
    ranked = [_ranked(group, on_front=i in front) for i, group in enumerate(members)]
    return sorted(ranked, key=lambda row: (-_value(row, by), row.init, row.deploy, row.technique))


def best_seed(row: Ranked, by: By) -> CellResult:
    """The seed of a ranked cell that scored highest: the one whose weights are registered."""
    return max(row.results, key=lambda result: getattr(result.final, by) or result.final.ka or 0.0)


def _value(row: Ranked, by: By) -> float:
    score = row.score(by)
    return score if score is not None else row.ka or row.zs or 0.0


def _ranked(group: Sequence[CellResult], *, on_front: bool) -> Ranked:
    axes = group[0].cell.axes
    return Ranked(
        init=axes["init"],
        deploy=axes["deploy"],
        technique=axes["technique"],
        model=axes["model"],
        budget=axes["budget"],
        seeds=len(group),
        ka=_mean(group, "ka"),
        zs=_mean(group, "zs"),
        gm=_mean(group, "gm"),
        ka_sd=_deviation(group, "ka"),
        zs_sd=_deviation(group, "zs"),
        gm_sd=_deviation(group, "gm"),
        pareto=on_front,
        results=tuple(group),
    )


def _values(group: Sequence[CellResult], name: By) -> list[float]:
    return [value for result in group if (value := getattr(result.final, name)) is not None]


def _mean(group: Sequence[CellResult], name: By) -> float | None:
    values = _values(group, name)
    return mean(values) if values else None


def _deviation(group: Sequence[CellResult], name: By) -> float | None:
    return deviation(_values(group, name))
