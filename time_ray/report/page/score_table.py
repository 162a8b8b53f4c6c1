"""The table of all that is ranked, with baselines: each value as it is read, and as it is sorted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from time_ray.analysis.costs import Costs
from time_ray.analysis.ranking import Ranked, Ranking
from time_ray.core.metrics import METRICS, OF_THE_PAPER
from time_ray.core.statistics import deviation, mean
from time_ray.report.axes import shown_axes
from time_ray.report.best import interval, spread, standing, value_title


class Entry(NamedTuple):
    """A value: its text, and the number that it is sorted by, if it is one."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class ScoreTable:
    """Rows in the order of the ranking, baselines last; the leader's is the first."""

    columns: Sequence[str]
    numeric: frozenset[str]
    rows: Sequence[Mapping[str, Entry]]


def score_table(ranked: Ranking, spent: Costs) -> ScoreTable:
    """All rows of a ranking, with what each cell cost: its own models, and its share of none."""
    if not ranked.rows:
        return ScoreTable((), frozenset(), ())
    every = [*ranked.rows, *ranked.removed, *ranked.baselines]
    axes = shown_axes([row.contender.axes for row in ranked.rows])
    moved = any(row.length != 1 for row in every)
    rows = []
    for number, row in enumerate(every, start=1):
        place = Entry(str(number), number) if number <= len(ranked.rows) else Entry("–")
        rows.append({"#": place, **dict(_entries(row, ranked, axes, spent, moved=moved))})
    kept = [name for name in rows[0] if any(row[name].text not in ("", "–") for row in rows)]
    numeric = frozenset(name for name in kept if any(row[name].number is not None for row in rows))
    return ScoreTable(kept, numeric, rows)


def _entries(
    row: Ranked, ranked: Ranking, axes: Sequence[str], spent: Costs, *, moved: bool
) -> Iterator[tuple[str, Entry]]:
    yield "standing", Entry(standing(ranked, row))
    for name in axes:
        yield name, Entry(row.contender.axes[name])
    for name in dict.fromkeys((*OF_THE_PAPER, ranked.metric.name)):
        yield METRICS[name].title, _number(row.mean_of(name), spread(row.mean_of(name), row.sd_of(name)))
    if moved:
        yield "length", Entry(f"{row.length:g}", row.length)
    if ranked.halves or moved or ranked.criterion.over != "end":
        title = f"{value_title(ranked)}{' *' if ranked.halves else ''}"
        yield title, _number(row.value, spread(row.value, deviation(row.by_seed)))
    yield "to the best", _number(row.lower, interval(row) or "–")
    yield "P(best)", _number(row.p_best, f"{row.p_best or 0:.2f}")
    for name, seconds in (("own s", _own(row, spent)), ("shared s", _shared(row, spent))):
        yield name, _number(seconds, f"{seconds or 0:.1f}")


def _number(value: float | None, text: str) -> Entry:
    return Entry("–") if value is None else Entry(text, value)


def _own(row: Ranked, spent: Costs) -> float | None:
    return _mean([sum(spent.by_cell[key].own.values()) for key in _keys(row)])


def _shared(row: Ranked, spent: Costs) -> float | None:
    return _mean([sum(spent.by_cell[key].shared.values()) for key in _keys(row)])


def _keys(row: Ranked) -> list[str]:
    """Cells of what is no base, which costs next to nothing."""
    return [] if row.baseline == "base" else [result.cell.key for result in row.results]


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
