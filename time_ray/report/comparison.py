"""`time-ray compare`: two selections of cells side by side, and where they differ most."""

from collections.abc import Iterable, Iterator

from rich.console import Console

from time_ray.analysis.comparison import Comparison, Difference
from time_ray.core.statistics import mean
from time_ray.report import tables
from time_ray.report.tables import Format

MOST_DATASETS = 6
MOST_CLASSES = 5
SURE = 95  # percent
COLUMNS = ("what", "name", "a", "b", "difference", "low", "high")


def print_comparison(found: Comparison, form: Format, talk: Console, *, everything: bool = False) -> None:
    """The differences are on stdout: for people the largest ones. What may be said of them is on stderr."""
    if form == "json":
        tables.print_mapping(found.as_dict(), form)
    elif form == "csv":
        tables.print_rows(list(rows(found, everything=True)), form, columns=COLUMNS)
    else:
        tables.print_rows([_shown(row) for row in rows(found, everything=everything)], form)
    for line in verdict(found):
        talk.print(line)


def rows(found: Comparison, *, everything: bool) -> Iterator[dict[str, object]]:
    """The metric, then pairs, datasets, tasks and classes."""
    yield _row("metric", found.criterion.by, found.difference)
    if len(found.pairs) > 1:
        pairs = sorted(found.pairs, key=lambda pair: -pair.difference.mean)
        yield from (_row("pair", pair.name, pair.difference) for pair in pairs)
    datasets = found.datasets if everything else found.datasets[:MOST_DATASETS]
    yield from (_row("dataset", one.name, one.difference) for one in datasets)
    yield from (_row("task", one.name.removeprefix("task "), one.difference) for one in found.tasks)
    for one in found.classes if everything else found.classes[:MOST_CLASSES]:
        yield {
            "what": "class",
            "name": f"{one.dataset}: {one.name}",
            "a": one.a,
            "b": one.b,
            "difference": one.a - one.b,
            "low": None,
            "high": None,
        }


def verdict(found: Comparison) -> list[str]:
    """What may be said, in sentences."""
    metric, many = found.criterion.metric, len(found.pairs) > 1
    unit = f"{'' if metric.unit == '%' else metric.unit + ' '}{metric.title}"
    by = f"{found.difference.mean:+.2f} {unit}"
    difference = found.difference
    pairs = f", mean of {len(found.pairs)} pairs" if many else ""
    if difference.low is None or difference.high is None:
        lines = [f"A - B: {by}{pairs}; one seed has no interval, add seeds with seed=[0,1,2]"]
    else:
        told = "not told apart" if difference.low <= 0 <= difference.high else "told apart"
        interval = f"{SURE} %: {difference.low:+.2f} … {difference.high:+.2f}, {len(found.seeds)} seeds"
        lines = [f"A - B: {by}{pairs} ({interval}): {told}"]
    if many:
        means = [pair.difference.mean for pair in found.pairs]
        above = sum(one > 0 for one in means)
        lines.append(f"pairs: from {min(means):+.2f} to {max(means):+.2f}; A is higher in {above} of {len(means)}")
    if found.images:
        one, other, p = found.images
        lines.append(
            f"images: A alone is right on {one}, B alone on {other} (McNemar's test: p = {p:.2g}, for "
            f"{'this stream' if len(found.seeds) == 1 else 'these streams'} only)"
        )
    if moved := _moved(found):
        lines.append(moved)
    if found.num_same:
        lines.append(f"{found.num_same} pairs serve the same models and are left out")
    if found.num_unfinished:
        lines.append(f"{found.num_unfinished} cells are not finished and left out")
    return lines


def _moved(found: Comparison) -> str:
    """At which lengths, if others than 1 were to choose from."""
    if set(found.lengths_a) == set(found.lengths_b) == {1.0} and not found.halves:
        return ""
    half = "measured on the half of the images that they were not chosen on"
    where = half if found.halves else "measured on the images that they were chosen on"
    return (
        f"at best lengths: A {_span(found.lengths_a)}, B {_span(found.lengths_b)}, {where} (as served: --lengths one)"
    )


def _span(lengths: Iterable[float]) -> str:
    low, *_, high = sorted([*lengths, *lengths])
    return f"{low:g}" if low == high else f"{low:g} to {high:g}, mean {mean(list(lengths)):.2f}"


def _row(what: str, name: str, difference: Difference) -> dict[str, object]:
    values = {"a": difference.a, "b": difference.b, "difference": difference.mean}
    return {"what": what, "name": name, **values, "low": difference.low, "high": difference.high}


def _shown(row: dict[str, object]) -> dict[str, object]:
    """As people read it."""
    low, high = row["low"], row["high"]
    return {
        "": row["what"],
        " ": row["name"],
        "A": row["a"],
        "B": row["b"],
        "A - B": f"{row['difference']:+.2f}",
        f"{SURE} % over seeds": None if low is None else f"{low:+.2f} … {high:+.2f}",
    }
